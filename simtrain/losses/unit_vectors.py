"""Vectors at length 1."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import threshold

#: Vectors that are not longer have no direction.
_NO_DIRECTION = 1e-12


def unit_vectors(x: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
    """Scale rows to length 1. A zero row has no direction: it stays zero, with a zero gradient.

    Example:
        >>> unit_vectors(torch.tensor([[0.0, 2.0], [0.0, 0.0]]))
        tensor([[0., 1.],
                [0., 0.]])
    """
    unit: Tensor = _UnitVectors.apply(x)  # type: ignore[no-untyped-call]
    return unit


class _UnitVectors(torch.autograd.Function):
    """The chain of operations of which it consists would take four times the steps, in every loss."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        inverse = norms.reciprocal().masked_fill_(norms <= _NO_DIRECTION, 0)
        unit: Tensor = x * inverse
        ctx.save_for_backward(x, unit, inverse)
        return unit

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        x, unit, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of the gradient is asked for
            inverse = _inverse_lengths(x)
            unit = x * inverse
        slope: Tensor = grad_outputs[0]
        along = (slope * unit).sum(dim=1, keepdim=True)
        through: Tensor = (slope - unit * along) * inverse
        return through


def _inverse_lengths(x: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    has_direction = norms > _NO_DIRECTION
    # The inner `where` keeps 1 / 0 out of the backward pass, in which 0 * inf would be NaN.
    inverse = torch.where(has_direction, norms, torch.ones_like(norms)).reciprocal()
    return torch.where(has_direction, inverse, torch.zeros_like(norms))


def inverse_lengths(lengths: Float[Tensor, " *shape"]) -> Float[Tensor, " *shape"]:
    """What brings vectors of these lengths to length 1; 0 for one without a direction.

    Example:
        >>> inverse_lengths(torch.tensor([0.0, 2.0]))
        tensor([0.0000, 0.5000])
    """
    return threshold(lengths, _NO_DIRECTION, torch.inf).reciprocal_()
