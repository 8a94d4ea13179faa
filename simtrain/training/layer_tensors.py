"""The weight and the bias that one layer has itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from simtrain.errors import ConfigError


def own_tensor(module: nn.Module, name: str) -> Tensor | None:
    """The floating parameter of that name that a layer itself has, parametrised or not; None without values.

    Raises:
        ConfigError: The layer is lazy, and has not seen a batch yet.
    """
    if not (name in module._parameters or parametrize.is_parametrized(module, name)):
        return None
    tensor = getattr(module, name)
    if is_lazy(tensor):
        raise ConfigError(
            f"the size of a {type(module).__name__} is not known yet; run one batch through the model first"
        )
    usable = isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.numel() > 0
    return tensor if usable else None


def set_tensor(module: nn.Module, name: str, fill: Callable[[Tensor], Tensor]) -> None:
    """Let ``fill`` set the parameter of that name in place."""
    with torch.no_grad():
        if parametrize.is_parametrized(module, name):
            # The tensor is computed from others; setting it lets the parametrisation work out those.
            setattr(module, name, fill(getattr(module, name).clone()))
        else:
            fill(getattr(module, name))


def clear_padding(module: nn.Module) -> None:
    """Set the padding row of an embedding to zero, as torch does when it makes one."""
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx] = 0
