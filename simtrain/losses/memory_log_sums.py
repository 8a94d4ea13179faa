"""The log of the sum of exponentials of an anchor's similarities to a memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from simtrain.losses.distances import Distance
from simtrain.losses.first_derivatives import refuse_second_derivatives
from simtrain.losses.memory_blocks import MemorySearch, blocks_of
from simtrain.losses.memory_rows import MemoryRows
from simtrain.losses.row_terms import Part
from simtrain.losses.softmax_terms import softmax_of


def memory_log_sums(
    anchors: Float[Tensor, "anchors dim"],
    memory: MemoryRows,
    excluded: Sequence[tuple[Integer[Tensor, " anchors"], Integer[Tensor, " memory"]]],
    *,
    distance: str = Distance.COSINE,
    scale: Tensor | float | int = 1.0,
    columns: Bool[Tensor, " memory"] | None = None,
) -> Float[Tensor, " anchors"]:
    """``log sum exp(scale * similarity)`` of each anchor over the memory, with its gradient by the anchors.

    Args:
        anchors: Shape ``(anchors, dim)``, at least one row.
        memory: The remembered rows, at least one.
        excluded: Labels of the anchors and of the memory rows: where two are equal, the row is left out.
        distance: One of :class:`Distance`; similarities are cosines, dot products or negated distances.
        scale: Factor of the similarities; a tensor that requires a gradient gets one.
        columns: Which memory rows take part at all. Default: all.

    Returns:
        Shape ``(anchors,)``; ``-inf`` where no row is left.

    Example:
        >>> memory = MemoryRows(torch.eye(2), torch.zeros(2, dtype=torch.long), torch.tensor([3, 4]))
        >>> memory_log_sums(torch.eye(2)[:1], memory, [(torch.tensor([4]), memory.items)])  # the second is left out
        tensor([1.])
    """
    search = MemorySearch(memory, Distance.of(distance), scale, excluded)
    with torch.autocast(anchors.device.type, enabled=False):
        value: Tensor = _LogSums.apply(anchors, scale, search, columns)  # type: ignore[no-untyped-call]
    return value


class _LogSums(torch.autograd.Function):
    """An anchor's sum depends on no other anchor: the gradient is one vector for each, kept from the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, anchors: Tensor, scale: Tensor | float, search: MemorySearch, columns: Tensor | None
    ) -> Tensor:
        prepared = search.vectors(anchors)
        vectors = prepared.vectors
        log_sums, gradient = torch.empty_like(vectors[:, 0]), torch.empty_like(vectors)
        nothing = torch.zeros(0, dtype=torch.long, device=anchors.device)
        for first, last, block in blocks_of(vectors, search):
            some = vectors[first:last]
            search.fill(some, block, first, last)
            if columns is not None:
                block.masked_fill_(~columns, -torch.inf)
            log_sums[first:last], shares = softmax_of(block)
            part = Part(block.new_zeros(()), nothing, nothing, nothing, block.new_zeros(0), shares)
            gradient[first:last] = search.gradient(some, part, block)
        by_scale = prepared.by_scale(gradient)
        ctx.save_for_backward(prepared.back(gradient), *([] if by_scale is None else [by_scale]))
        ctx.dtype = anchors.dtype
        return log_sums

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        refuse_second_derivatives()
        by_anchors, *by_scale = ctx.saved_tensors
        slope: Tensor = grad_outputs[0]
        of_scale = (slope * by_scale[0]).sum() if by_scale else None
        return (slope.unsqueeze(1) * by_anchors).to(ctx.dtype), of_scale, None, None
