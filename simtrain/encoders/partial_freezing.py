"""Training only the last layers of a transformer."""

from __future__ import annotations

from torch import nn

from simtrain.errors import ConfigError


def parse_trainable(trainable: bool | str) -> int | None:
    """Number of last layers to train: ``"last:2"`` gives 2, True gives None (all), False gives 0.

    Raises:
        ConfigError: Neither a bool nor ``"last:N"`` with N of 1 or more.

    Example:
        >>> parse_trainable("last:2"), parse_trainable(True), parse_trainable(False)
        (2, None, 0)
    """
    if isinstance(trainable, bool):
        return None if trainable else 0
    count = trainable.removeprefix("last:") if isinstance(trainable, str) and trainable.startswith("last:") else ""
    if not (count.isascii() and count.isdigit()) or int(count) == 0:
        raise ConfigError(f"trainable must be False, True or 'last:N' with N of 1 or more, got {trainable!r}")
    return int(count)


def layer_stack(module: nn.Module) -> nn.ModuleList:
    """The transformer layers of ``module``: the longest list of equal modules in it.

    Raises:
        ConfigError: There is no such list.
    """
    stacks = [m for m in module.modules() if isinstance(m, nn.ModuleList) and len({type(layer) for layer in m}) == 1]
    if not stacks:
        raise ConfigError(f"trainable='last:N' needs a stack of transformer layers, {type(module).__name__} has none")
    return max(stacks, key=len)


def last_layers(module: nn.Module, count: int) -> list[nn.Module]:
    """The last ``count`` transformer layers of ``module``.

    Raises:
        ConfigError: It has fewer, or none.
    """
    stack = layer_stack(module)
    if count > len(stack):
        raise ConfigError(f"trainable='last:{count}' asks for more than the model's {len(stack)} layers")
    return list(stack)[-count:]
