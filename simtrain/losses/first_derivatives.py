"""Losses that find their gradient along with their value have no gradient of the gradient."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from simtrain.errors import ConfigError


def refuse_second_derivatives() -> None:
    """Called in a backward pass whose result autograd cannot follow: a wrong gradient would go unnoticed.

    Raises:
        ConfigError: The backward pass is itself to be differentiated.
    """
    if torch.is_grad_enabled():
        raise ConfigError(
            "this loss finds its gradient along with its value and has no gradient of the gradient; "
            "leave out create_graph=True, or put a penalty on the gradient of a loss of your own"
        )


def first_derivatives_only(value: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """The value, whose gradient cannot be differentiated once more.

    Example:
        >>> first_derivatives_only(torch.tensor(2.0))
        tensor(2.)
    """
    same: Tensor = _FirstOnly.apply(value)  # type: ignore[no-untyped-call]
    return same


class _FirstOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        refuse_second_derivatives()
        slope: Tensor = grad_outputs[0]
        return slope
