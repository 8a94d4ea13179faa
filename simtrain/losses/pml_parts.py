"""Parts of pytorch-metric-learning from nested configs."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from simtrain.errors import ConfigError, UnknownNameError, nearest
from simtrain.losses.pml_names import PREFIX, pml_names

# What a word of a PML constructor takes.
_KIND_OF_WORD = {
    "loss": "losses",
    "losses": "losses",
    "miner": "miners",
    "miners": "miners",
    "distance": "distances",
    "reducer": "reducers",
    "reducers": "reducers",
    "default_reducer": "reducers",
    "embedding_regularizer": "regularizers",
    "weight_regularizer": "regularizers",
}


def build_pml(config: Mapping[str, Any], kind: str) -> nn.Module:
    """Build a part of pytorch-metric-learning and the parts inside of it.

    Args:
        config: ``{"type": "pml.Name", **constructor arguments}``; arguments may be such configs, or lists or dicts of
            them, in turn.
        kind: ``"losses"``, ``"miners"``, ``"distances"``, ``"reducers"`` or ``"regularizers"``.

    Returns:
        The part.

    Raises:
        UnknownNameError: There is none of that name and kind; the message gives the nearest.
        ConfigError: An argument is unknown, missing, or refused by the class.

    Example:
        >>> build_pml({"type": "pml.CircleLoss", "m": 0.3, "distance": {"type": "pml.CosineSimilarity"}}, "losses").m
        0.3
    """
    name = check_pml_name(config.get("type"), kind)
    factory = getattr(importlib.import_module(f"pytorch_metric_learning.{kind}"), name.removeprefix(PREFIX))
    words = {str(word): value for word, value in config.items() if word != "type"}
    _check_words(name, factory, words)
    built = {word: _built(value, _KIND_OF_WORD.get(word)) for word, value in words.items()}
    if name == "pml.ClassWeightedReducer":
        built["weights"] = torch.as_tensor(built["weights"], dtype=torch.float32)
    try:
        part: nn.Module = factory(**built)
    except (TypeError, ValueError, AssertionError, KeyError) as error:
        raise ConfigError(f"{name} refuses these settings ({type(error).__name__}: {error}); given: {words}") from error
    return part


def check_pml_name(name: Any, kind: str) -> str:
    """Return a registry name if pytorch-metric-learning has it.

    Raises:
        UnknownNameError: It has not, or it is of another kind.

    Example:
        >>> check_pml_name("pml.CircelLoss", "losses")
        Traceback (most recent call last):
        ...
        simtrain.errors.UnknownNameError: pytorch-metric-learning has no 'pml.CircelLoss' ...did you mean 'pml.CircleLoss'...
    """  # noqa: E501 - the line of an error
    known = pml_names()
    if name in known and known[name] == kind:
        return str(name)
    other = f" (it is one of its {known[name]})" if name in known else ""
    names = [other_name for other_name, other_kind in known.items() if other_kind == kind]
    raise UnknownNameError(
        f"pytorch-metric-learning has no {name!r} among its {kind}{other}; {nearest(str(name), names)}"
    )


def _check_words(name: str, factory: Any, words: Mapping[str, Any]) -> None:
    accepted = _accepted_words(factory)
    for word in words:
        if word not in accepted:
            raise ConfigError(f"{name} has no setting {word!r}; {nearest(word, accepted)}")


def _accepted_words(factory: Any) -> list[str]:
    # PML's constructors hand on what they do not know: the words of a class are those of all its bases.
    words: list[str] = []
    for owner in factory.__mro__:
        if owner is nn.Module:
            break
        if "__init__" not in vars(owner):
            continue
        parameters = list(inspect.signature(owner.__init__).parameters.values())[1:]
        words += [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return words


def _built(value: Any, kind: str | None) -> Any:
    if isinstance(value, Mapping) and "type" in value:
        if kind is None:
            raise ConfigError(f"a setting that takes no part of pytorch-metric-learning was given one: {dict(value)}")
        return build_pml(value, kind)
    if kind is not None and isinstance(value, Mapping):
        return {key: _built(part, kind) for key, part in value.items()}
    if kind is not None and isinstance(value, (list, tuple)):
        return [_built(part, kind) for part in value]
    return value
