"""What anchors are searched by, and the way of a gradient back to them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from simtrain.losses.distances import Distance
from simtrain.losses.first_derivatives import refuse_second_derivatives
from simtrain.losses.unit_vectors import inverse_lengths


class AnchorVectors(NamedTuple):
    """Anchors at length 1 where only their direction counts, times a scale.

    It is no chain of operations that autograd follows: in a small batch, its bookkeeping would cost as much as the
    similarities.

    Attributes:
        vectors: What is multiplied with the candidates, shape ``(anchors, dim)``.
        directions: The vectors before they were scaled.
        inverse: One over the anchors' lengths, 0 for one without a direction, shape ``(anchors, 1)``; None where
            lengths count.
        scale: Factor of the vectors.
    """

    vectors: Float[Tensor, "anchors dim"]
    directions: Float[Tensor, "anchors dim"]
    inverse: Float[Tensor, "anchors 1"] | None
    scale: Tensor | float

    @classmethod
    def of(
        cls, anchors: Float[Tensor, "anchors dim"], distance: Distance, scale: Tensor | float, dtype: torch.dtype
    ) -> AnchorVectors:
        """The vectors of some anchors.

        Args:
            anchors: Shape ``(anchors, dim)``.
            distance: One of :class:`Distance`.
            scale: Factor of the vectors.
            dtype: They are computed in this type or a wider one.

        Example:
            >>> AnchorVectors.of(torch.tensor([[3.0, 4.0]]), Distance.COSINE, 10.0, torch.float32).vectors
            tensor([[6., 8.]])
        """
        wide = anchors.detach().to(torch.promote_types(torch.promote_types(anchors.dtype, dtype), torch.float32))
        inverse = None
        if distance is Distance.COSINE:
            inverse = inverse_lengths(torch.linalg.vector_norm(wide, dim=1, keepdim=True))
            wide = wide * inverse
        scale = scale.detach() if isinstance(scale, Tensor) else scale
        return cls(wide * scale if isinstance(scale, Tensor) or scale != 1 else wide, wide, inverse, scale)

    def back(self, gradient: Float[Tensor, "anchors dim"]) -> Float[Tensor, "anchors dim"]:
        """A gradient by the vectors becomes that by the anchors; it is written to."""
        if isinstance(self.scale, Tensor) or self.scale != 1:
            gradient = gradient.mul_(self.scale)
        if self.inverse is None:
            return gradient
        along = (gradient * self.directions).sum(dim=1, keepdim=True)
        return gradient.addcmul_(self.directions, along, value=-1).mul_(self.inverse)

    def by_scale(self, gradient: Float[Tensor, "anchors dim"]) -> Float[Tensor, " anchors"] | None:
        """Each anchor's part in the derivative by the scale, from a gradient by the vectors; None for a number."""
        return (gradient * self.directions).sum(dim=1) if isinstance(self.scale, Tensor) else None


def keep_gradients(ctx: Any, prepared: AnchorVectors, gradient: Float[Tensor, "anchors dim"]) -> None:
    """Keep the derivatives of a scalar for :func:`kept_gradients`.

    Args:
        ctx: Of an autograd function, whose first inputs are the anchors and their scale.
        prepared: The anchors.
        gradient: Derivative by their vectors; it is written to.
    """
    by_scale = prepared.by_scale(gradient) if ctx.needs_input_grad[1] else None
    ctx.save_for_backward(prepared.back(gradient), *([] if by_scale is None else [by_scale.sum()]))


def kept_gradients(ctx: Any, slope: Float[Tensor, ""]) -> tuple[Tensor, Tensor | None]:
    """Derivatives by the anchors and by their scale, in the backward pass."""
    refuse_second_derivatives()
    by_anchors, *by_scale = ctx.saved_tensors
    return (slope * by_anchors).to(ctx.dtype), slope * by_scale[0] if by_scale else None
