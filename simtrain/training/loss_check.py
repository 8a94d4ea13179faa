"""The check of a loss before its backward pass."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from simtrain.errors import ContractError, DataError


def check_loss(loss: Any, name: str = "the loss", raises: bool = True) -> bool:
    """Refuse a loss that would spoil the weights or do nothing to them.

    Args:
        loss: What is to go backward.
        name: What it is called in messages.
        raises: One that is not finite is an error.

    Returns:
        Whether it is finite.

    Raises:
        ContractError: The loss is no single number, or has no graph.
        DataError: The loss is not finite.

    Example:
        >>> import torch
        >>> check_loss(torch.tensor(1.0, requires_grad=True))
        True
    """
    if not isinstance(loss, Tensor):
        raise ContractError(f"{name} should be a tensor with its graph, got a {type(loss).__name__}")
    if loss.numel() != 1:
        raise ContractError(f"{name} should be a single number, got the shape {tuple(loss.shape)}; take its mean")
    if not loss.requires_grad:
        raise ContractError(
            f"{name} has no graph: nothing it was computed from is trainable, or it was detached or computed "
            f"under no_grad"
        )
    is_finite = math.isfinite(loss.item())
    if raises and not is_finite:
        raise DataError(
            f"{name} is {loss.item()}; no weight was changed; look at the batch, lower the learning rate or clip "
            f"gradients"
        )
    return is_finite
