"""Losses within a batch, from the block of its similarities."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from simtrain.losses.anchor_vectors import AnchorVectors, keep_gradients, kept_gradients
from simtrain.losses.distances import Distance, pair_distances, similarity_matrix
from simtrain.losses.first_derivatives import first_derivatives_only, refuse_second_derivatives
from simtrain.losses.row_terms import Part, RowTerms, nan_of, take_positives
from simtrain.losses.weighted_sums import LISTED_COST, in_row_order, weighted_sums


def within_batch(
    similarities: Float[Tensor, "anchors candidates"],
    positive: tuple[Tensor, Tensor],
    ignored: Bool[Tensor, "anchors candidates"] | None,
    terms: RowTerms,
) -> Float[Tensor, ""]:
    """Loss of a matrix of similarities, with its gradient by each of them.

    Args:
        similarities: Shape ``(anchors, candidates)``; it is written to.
        positive: Rows and columns of the positives.
        ignored: True where a candidate takes no part; None for the diagonal.
        terms: As in :func:`simtrain.losses.memory_blocks.against_memory`.
    """
    value: Tensor = _WithinBatch.apply(similarities, positive, ignored, terms)  # type: ignore[no-untyped-call]
    return value


class _WithinBatch(torch.autograd.Function):
    """As ``_AgainstMemory``, but of one block, and the gradient is that of the similarities."""

    @staticmethod
    def forward(
        ctx: Any, similarities: Tensor, positive: tuple[Tensor, Tensor], ignored: Tensor | None, terms: RowTerms
    ) -> Tensor:
        spoilt = nan_of(similarities)
        block = _blanked(similarities.detach(), ignored)
        parts = terms(block, take_positives(block, *positive))
        shares = [part.count.clamp(min=1).to(block.dtype).reciprocal() for part in parts]
        ctx.save_for_backward(_slope_of(parts, shares, block))
        value = torch.stack([part.total * share for part, share in zip(parts, shares, strict=True)]).sum()
        return value + spoilt

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        refuse_second_derivatives()
        (slope,) = ctx.saved_tensors
        return grad_outputs[0] * slope, None, None, None


def _blanked(block: Tensor, ignored: Tensor | None) -> Tensor:
    return block.fill_diagonal_(-torch.inf) if ignored is None else block.masked_fill_(ignored, -torch.inf)


def within_products(
    embeddings: Float[Tensor, "batch dim"],
    positive: tuple[Tensor, Tensor],
    terms: RowTerms,
    distance: Distance = Distance.COSINE,
    scale: Tensor | float = 1.0,
) -> Float[Tensor, ""]:
    """Loss of a batch whose similarities are cosines or dot products.

    The gradient is found along with the loss: one matrix product, or less where only a few pairs have a slope, in
    place of the two that a matrix of similarities costs in its backward pass.

    Args:
        embeddings: Shape ``(batch, dim)``, at least one row.
        positive: Rows and columns of the pairs of one group, each in order.
        terms: As in :func:`simtrain.losses.memory_blocks.against_memory`.
        distance: Cosine or dot.
        scale: Factor of the similarities, above zero; a tensor that requires a gradient gets one.
    """
    # Half of the scale is each vector's of a pair, so that both are the same.
    root = scale**0.5 if isinstance(scale, Tensor) or scale != 1 else 1.0
    with torch.autocast(embeddings.device.type, enabled=False):
        value: Tensor = _WithinProducts.apply(  # type: ignore[no-untyped-call]
            embeddings, root, distance, positive, terms
        )
    return value


class _WithinProducts(torch.autograd.Function):
    """As :class:`_WithinBatch`, but the gradient is that of the embeddings."""

    @staticmethod
    def forward(
        ctx: Any,
        embeddings: Tensor,
        scale: Tensor | float,
        distance: Distance,
        positive: tuple[Tensor, Tensor],
        terms: RowTerms,
    ) -> Tensor:
        prepared = AnchorVectors.of(embeddings, distance, scale, embeddings.dtype)
        vectors = prepared.vectors
        block = _blanked(torch.mm(vectors, vectors.t()), None)
        parts = terms(block, take_positives(block, *positive))
        shares = [part.count.clamp(min=1).to(block.dtype).reciprocal() for part in parts]
        value = functools.reduce(torch.add, (part.total * share for part, share in zip(parts, shares, strict=True)))
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            keep_gradients(ctx, prepared, _slope_times_vectors(parts, shares, block, vectors))
        ctx.dtype = embeddings.dtype
        return value + nan_of(vectors)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        return (*kept_gradients(ctx, grad_outputs[0]), None, None, None)


def _slope_times_vectors(parts: Sequence[Part], shares: list[Tensor], block: Tensor, vectors: Tensor) -> Tensor:
    """Each pair moves both of its vectors: the slopes and their transpose, times the vectors."""
    listed = sum(len(part.rows) for part in parts) * LISTED_COST <= block.numel()
    if listed and vectors.device.type == "cpu" and all(part.dense is None for part in parts):
        rows, columns = torch.cat([part.rows for part in parts]), torch.cat([part.columns for part in parts])
        slopes = torch.cat([part.slopes * share for part, share in zip(parts, shares, strict=True)])
        both = torch.cat([rows, columns]), torch.cat([columns, rows]), torch.cat([slopes, slopes])
        return weighted_sums(*in_row_order(*both), vectors, len(vectors))
    slope = _slope_of(parts, shares, block)
    return (slope + slope.T) @ vectors


def _slope_of(parts: Sequence[Part], shares: Sequence[Tensor], block: Tensor) -> Tensor:
    """Derivative of the loss by each similarity; the block is used up."""
    dense = [part.dense.mul_(share) for part, share in zip(parts, shares, strict=True) if part.dense is not None]
    slope = dense[0] if dense else block.zero_()
    for other in dense[1:]:
        slope.add_(other)
    for part, share in zip(parts, shares, strict=True):
        part.add_listed(slope, share)
    return slope


def picked_pairs(
    embeddings: Float[Tensor, "batch dim"], positive: tuple[Tensor, Tensor], terms: RowTerms, distance: Distance
) -> Float[Tensor, ""]:
    """Loss of a batch, of which only a few pairs have a slope: the gradient runs through these, not through a matrix.

    Args:
        embeddings: Shape ``(batch, dim)``, at least one row.
        positive: Rows and columns of the pairs of one group.
        terms: As in :func:`simtrain.losses.memory_blocks.against_memory`.
        distance: Euclidean, squared euclidean or manhattan.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        wide = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
        with torch.no_grad():
            block = _blanked(similarity_matrix(wide, wide, distance), None)
            parts = terms(block, take_positives(block, *positive))
        values = [_of_listed(wide, part, distance) for part in parts]
        return first_derivatives_only(torch.stack(values).sum() + nan_of(wide))


def _of_listed(embeddings: Tensor, part: Part, distance: Distance) -> Tensor:
    similarities = -pair_distances(embeddings[part.rows], embeddings[part.columns], distance)
    sloped = (part.slopes * similarities).sum()
    # The value of the block, and the slopes of the pairs.
    return (part.total + (sloped - sloped.detach())) / part.count.clamp(min=1)
