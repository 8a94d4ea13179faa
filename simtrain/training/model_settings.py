"""From a config to the class of a model and the arguments of its constructor."""

from __future__ import annotations

import dataclasses
import inspect
import re
from argparse import Namespace
from collections.abc import Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from simtrain import registry
from simtrain.errors import ConfigError, ContractError, UnknownNameError, nearest

#: Keys of a model's config that say what to do with the model, not how to build it.
RESERVED = ("type", "pretrained", "allow_missing_keys", "device")
# Parts of a model; an optimizer, a sampler or a callback cannot be built before there is a model.
_PARTS = (registry.models, registry.encoders, registry.heads, registry.losses, registry.metrics, registry.preprocessors)


def settings_of(cfg: Any) -> dict[str, Any]:
    """The settings of a config as a dict.

    Args:
        cfg: A mapping, an OmegaConf config, a ``Namespace`` or another object with attributes, or a dataclass.

    Raises:
        ContractError: ``cfg`` is nothing of that kind.

    Example:
        >>> from argparse import Namespace
        >>> settings_of(Namespace(type="Toy", size=3))
        {'type': 'Toy', 'size': 3}
    """
    if isinstance(cfg, DictConfig):
        return _plain(cfg)
    if isinstance(cfg, Mapping):
        return {str(key): value for key, value in cfg.items()}
    if dataclasses.is_dataclass(cfg) and not isinstance(cfg, type):
        return {field.name: getattr(cfg, field.name) for field in dataclasses.fields(cfg)}
    if hasattr(cfg, "__dict__") and not isinstance(cfg, type) and not callable(cfg):
        return dict(vars(cfg))
    raise ContractError(
        f"a model's config is a dict, an OmegaConf config, a Namespace or a dataclass, got {type(cfg).__name__}"
    )


def model_class(asked: type[Any], root: type[Any], settings: Mapping[str, Any]) -> type[Any]:
    """The class that a config is about.

    Args:
        asked: The class whose ``from_cfg`` was called.
        root: The abstract class, which cannot be built without a ``type``.
        settings: Settings of the model.

    Raises:
        ConfigError: There is no ``type``, it is unknown, or it names a class of another kind.
    """
    name = settings.get("type")
    if inspect.isclass(name):
        return _subclass(name, asked, root)
    if name is None:
        if asked is root:
            raise ConfigError(
                f"the config has no 'type', and {root.__name__} itself cannot be built; name a registered class "
                f"({nearest('', registry.models.names())}), or call from_cfg on the class itself"
            )
        return asked
    return _subclass(registry.models.get(name), asked, root)


def _subclass(found: Any, asked: type[Any], root: type[Any]) -> type[Any]:
    if inspect.isclass(found) and issubclass(found, asked):
        return found
    name = getattr(found, "__name__", found)
    if asked is root:
        raise ConfigError(f"{name!r} is no {root.__name__}; build it with registry.models.build")
    raise ConfigError(f"the model {name!r} is no {asked.__name__}; call {root.__name__}.from_cfg, or change 'type'")


def constructed(kind: type[Any], settings: Mapping[str, Any]) -> Any:
    """Build an object of a class from those settings that are arguments of its constructor.

    Raises:
        ConfigError: A setting is neither that nor one of :data:`RESERVED`, an argument without a default is missing, or
            a sub-config is wrong.
    """
    words = constructor_words(kind, settings)
    parts = kind._built(words) if hasattr(kind, "_built") else built(kind, words)
    try:
        return kind(**parts)
    except TypeError as error:
        # A constructor that takes **kwargs may hand them to one that does not.
        found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if found is None or found[1] not in words:
            raise
        raise ConfigError(
            f"{kind.__name__} has no setting {found[1]!r}; {nearest(found[1], known_words(kind))}"
        ) from error


def takes(kind: type[Any], word: str) -> bool:
    """Whether a class's constructor names an argument."""
    return word in inspect.signature(kind).parameters


def constructor_words(kind: type[Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings that are arguments of a class's constructor.

    Raises:
        ConfigError: A setting is neither that nor reserved, or an argument without a default is missing.
    """
    signature = inspect.signature(kind)
    takes_all = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    words = {key: value for key, value in settings.items() if key in signature.parameters or key not in RESERVED}
    for key in words:
        if key not in signature.parameters and not takes_all:
            raise ConfigError(f"{kind.__name__} has no setting {key!r}; {nearest(key, known_words(kind))}")
    try:
        signature.bind(**words)
    except TypeError as error:
        raise ConfigError(f"{kind.__name__} cannot be built from this config: {error}") from error
    return words


def known_words(kind: type[Any]) -> list[str]:
    """Words that a config of a class may use: its constructor's, and its bases' while each takes ``**kwargs``."""
    words = list(RESERVED)
    for owner in kind.__mro__:
        if "__init__" not in vars(owner):
            continue
        parameters = inspect.signature(vars(owner)["__init__"]).parameters.values()
        named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        words += [name for name in named if name != "self"]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return words


def built(kind: type[Any], words: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments with every sub-config built: whatever has a ``type``, also in lists and mappings.

    An argument that the constructor annotates as a ``dict`` or ``Mapping`` of anything but modules is left as it is,
    and so are the ``data_preprocessor`` and ``init_cfg``, which a model reads itself.

    Raises:
        ConfigError: A ``type`` is unknown, or known in several registries.
    """
    raw = _wants_mapping(kind) | {"data_preprocessor", "init_cfg"}
    return {name: value if name in raw else _built_word(kind, name, value) for name, value in words.items()}


def build_nested(value: Any) -> Any:
    """Build a value where it is a config with a ``type``, and what a sequence or mapping holds likewise."""
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
    elif isinstance(value, Namespace) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        # Other objects are values; one that names a type is a config.
        value = settings_of(value) if isinstance(getattr(value, "type", None), str) else value
    if isinstance(value, Mapping):
        return _built_mapping(value)
    if type(value) in (list, tuple):
        return type(value)(build_nested(part) for part in value)
    return value


def _built_mapping(value: Mapping[Any, Any]) -> Any:
    name = value.get("type")
    if not isinstance(name, str):
        return {key: build_nested(part) for key, part in value.items()}
    part = _registry_of(name)
    kind = part.get(name)
    if part is registry.models and hasattr(kind, "from_cfg"):
        return kind.from_cfg(value)
    if getattr(kind, "builds_own_parts", False):
        return part.build(value)
    return part.build({key: build_nested(inner) for key, inner in value.items()})


def _built_word(kind: type[Any], name: str, value: Any) -> Any:
    try:
        return build_nested(value)
    except ConfigError as error:
        if name in known_words(kind):
            raise
        raise ConfigError(
            f"{kind.__name__} names no setting {name!r}; {nearest(name, known_words(kind))} (building it: {error})"
        ) from error


def usable_device(name: Any) -> torch.device:
    """The device of that name.

    Raises:
        ConfigError: There is no such device on this machine.

    Example:
        >>> usable_device("cpu")
        device(type='cpu')
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"the device {name!r} cannot be used here ({reason}); use 'cpu', or leave it out") from error
    return device


def _registry_of(name: str) -> registry.Registry:
    found = [part for part in _PARTS if name in part]
    if len(found) == 1:
        return found[0]
    kinds = " and a ".join(part.kind for part in found)
    if found:
        raise ConfigError(f"{name!r} is a {kinds}; build it yourself and pass the object")
    known = [known for part in _PARTS for known in part.names()]
    raise UnknownNameError(
        f"unknown type {name!r} in a model's config; {nearest(name, known)}. To hand a dict with a 'type' to the "
        f"constructor as it is, annotate the argument as a dict"
    )


def _plain(cfg: DictConfig) -> dict[str, Any]:
    try:
        plain: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"the model's config is not complete: {str(error).splitlines()[0]}") from error
    return {str(key): value for key, value in plain.items()}


def _wants_mapping(kind: type[Any]) -> set[str]:
    try:
        hints = get_type_hints(kind.__init__)
    except (NameError, TypeError):  # annotations that only a type checker can resolve
        hints = {name: hint for name, hint in kind.__init__.__annotations__.items() if not isinstance(hint, str)}
    return {name for name, hint in hints.items() if _is_plain_mapping(hint)}


def _is_plain_mapping(hint: Any) -> bool:
    # dict | None has the parts dict and None.
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return any(_is_mapping(part) and not _of_modules(part) for part in parts)


def _is_mapping(hint: Any) -> bool:
    kind = get_origin(hint) or hint
    return inspect.isclass(kind) and issubclass(kind, Mapping)


def _of_modules(hint: Any) -> bool:
    values = get_args(hint)[1:]
    return any(inspect.isclass(value) and issubclass(value, nn.Module) for value in values)
