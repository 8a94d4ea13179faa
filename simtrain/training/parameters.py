"""Parameters of a model: freezing them by name, counting them, and where they are."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from simtrain.errors import ConfigError

# _NormBase: every BatchNorm and InstanceNorm, the synchronised and the lazy ones too.
NORM_LAYERS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
_SHOWN = 8


def freeze_parameters(model: nn.Module, freeze: bool = True, regex: str | None = None) -> list[str]:
    """Freeze parameters, or unfreeze them.

    A frozen parameter's gradient is dropped, so that no optimizer step moves it any more. A parameter that has
    several names is found by each of them. Integer parameters, which cannot have gradients, stay frozen.

    Args:
        model: The model.
        freeze: False unfreezes.
        regex: Pattern to be found anywhere in a parameter's name (``re.search``: ``^linear`` takes all that begin with
            ``linear``); None takes all parameters.

    Returns:
        Names of the parameters that are now frozen (or unfrozen) by this call, in the model's order.

    Raises:
        ConfigError: The pattern is malformed or found in no name.

    Example:
        >>> freeze_parameters(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), regex="^0")
        ['0.weight', '0.bias']
    """
    named = dict(model.named_parameters(remove_duplicate=False))
    chosen = list(named) if regex is None else _matching(regex, named, type(model).__name__)
    touched = [name for name in chosen if freeze or _can_have_gradients(named[name])]
    for name in touched:
        # Set as an attribute, which lazy parameters allow, too.
        named[name].requires_grad = not freeze
        if freeze:
            named[name].grad = None
    return touched


def frozen_norm_layers(model: nn.Module) -> list[nn.Module]:
    """Normalisation layers that are frozen: whose statistics should stay as they are, too.

    BatchNorm, SyncBatchNorm, InstanceNorm (1d to 3d, lazy ones too), GroupNorm, LayerNorm and RMSNorm count. A layer
    is frozen if all its parameters are. One that has none goes with the nearest module around it that has some; in a
    model without parameters nothing is frozen.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        >>> _ = freeze_parameters(model, regex="^1")
        >>> frozen_norm_layers(model) == [model[1]]
        True
    """
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, NORM_LAYERS) and _is_frozen(_nearest_with_parameters(model, name))
    ]


def module_device(model: nn.Module, default: torch.device | str = "cpu") -> torch.device:
    """Device of the first parameter, else of the first buffer, else ``default``."""
    first = next(itertools.chain(model.parameters(), model.buffers()), None)
    return torch.device(default) if first is None else first.device


def module_dtype(model: nn.Module) -> torch.dtype:
    """Dtype of the first parameter, else of the first floating buffer, else torch's default."""
    for parameter in model.parameters():
        return parameter.dtype
    for buffer in model.buffers():
        if buffer.is_floating_point():
            return buffer.dtype
    return torch.get_default_dtype()


def count_parameters(model: nn.Module, trainable_only: bool = False) -> int:
    """Number of values in a model's parameters; shared parameters count once.

    Args:
        model: The model.
        trainable_only: Leave out frozen parameters.

    Raises:
        ConfigError: A lazy layer has not seen a batch yet, so that its size is not known.

    Example:
        >>> count_parameters(nn.Linear(3, 2))
        8
    """
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise ConfigError(f"the size of {name!r} is not known yet; run one batch through the model first")
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)


def nearest_names(name: str, known: Iterable[str]) -> str:
    """Word the end of an "unknown name" message with the few names that are most alike: a model may have thousands.

    Example:
        >>> nearest_names("fc.weigth", ["fc.bias", "fc.weight"])
        "nearest: 'fc.weight', 'fc.bias'"
    """
    names = sorted(set(known))
    alike = difflib.get_close_matches(name, names, n=_SHOWN, cutoff=0.0)
    more = f" (and {len(names) - len(alike)} more)" if len(names) > len(alike) else ""
    return f"nearest: {', '.join(map(repr, alike))}{more}" if names else "it has none"


def _matching(regex: str, names: Iterable[str], model: str) -> list[str]:
    try:
        pattern = re.compile(regex)
    except re.error as error:
        raise ConfigError(f"regex {regex!r} is not a pattern: {error}") from error
    chosen = [name for name in names if pattern.search(name)]
    if not chosen:
        raise ConfigError(f"regex {regex!r} is found in no parameter name of {model}; {nearest_names(regex, names)}")
    return chosen


def _can_have_gradients(parameter: nn.Parameter) -> bool:
    return parameter.dtype.is_floating_point or parameter.dtype.is_complex


def _nearest_with_parameters(model: nn.Module, name: str) -> nn.Module:
    module = model.get_submodule(name)
    while name and next(module.parameters(), None) is None:
        name = name.rpartition(".")[0]
        module = model.get_submodule(name)
    return module


def _is_frozen(module: nn.Module) -> bool:
    trainable = [parameter.requires_grad for parameter in module.parameters()]
    return bool(trainable) and not any(trainable)
