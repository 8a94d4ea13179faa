"""Losses against a memory, a block of anchors at a time: no matrix of batch x memory, and no graph over the memory.

In the forward pass, the similarities of a few anchors to the whole memory are computed into one block, which is used
over and over; the loss turns it into its value and slopes, and the slopes at once into the gradient of these anchors.
So two matrix products are all there is, as in a plain similarity matrix and its backward pass, and peak memory is a
few blocks, whatever the size of batch and memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from simtrain.errors import ConfigError
from simtrain.losses.distances import Distance, pair_distances, similarity_matrix, unit_vectors
from simtrain.losses.equal_pairs import LabelIndex
from simtrain.losses.memory_rows import MemoryRows
from simtrain.losses.row_terms import Part, Positives, mask_places, take_positives

RowTerms = Callable[[Tensor, Positives], Sequence[Part]]

#: Entries of a block: 8 MB in float32.
BLOCK = 1 << 21
#: Fewest anchors a block, where the batch has as many: matrix products of fewer rows are slow.
_FEWEST_ROWS = 64
#: Listed slopes that are turned into a gradient at a time, in units of the block's rows.
_LISTED = 1 << 14


def against_memory(
    anchors: Float[Tensor, "anchors dim"],
    groups: Integer[Tensor, " anchors"],
    items: Integer[Tensor, " anchors"] | None,
    memory: MemoryRows,
    terms: RowTerms,
    *,
    distance: str = Distance.COSINE,
    scale: Tensor | float | int = 1.0,
    own: Bool[Tensor, "anchors memory"] | None = None,
) -> Float[Tensor, ""]:
    """Loss of anchors against a memory, with its gradient by the anchors.

    Args:
        anchors: Shape ``(anchors, dim)``, at least one row.
        groups: Group of each anchor.
        items: Item of each anchor; memory rows of the same item take no part. None: no item is known.
        memory: The remembered rows, at least one.
        terms: Turns a block of similarities, and its positives, into the parts of the loss.
        distance: One of :class:`Distance`; similarities are cosines, dot products or negated distances.
        scale: Factor of the similarities; a tensor that requires a gradient gets one.
        own: Memory rows that take no part for an anchor, as a matrix, in place of ``items``.

    Returns:
        A scalar, float32 or wider.
    """
    with torch.autocast(anchors.device.type, enabled=False):
        searching, left = prepared_anchors(anchors, memory, Distance.of(distance), scale)
        excluded = [] if items is None else [(items, memory.items)]
        search = MemorySearch(memory, Distance.of(distance), left, excluded, own)
        same_group = LabelIndex(groups, memory.groups)
        value: Tensor = _AgainstMemory.apply(searching, search, same_group, terms)  # type: ignore[no-untyped-call]
    return value


def prepared_anchors(
    anchors: Float[Tensor, "anchors dim"], memory: MemoryRows, distance: Distance, scale: Tensor | float | int
) -> tuple[Float[Tensor, "anchors dim"], float]:
    """Anchors whose dot products with the memory are what is wanted, and the factor that is still to be applied."""
    dtype = torch.promote_types(torch.promote_types(anchors.dtype, memory.embeddings.dtype), torch.float32)
    anchors = anchors.to(dtype)
    if distance is Distance.COSINE:
        anchors = unit_vectors(anchors)
    if distance in (Distance.COSINE, Distance.DOT):
        return anchors * scale, 1.0
    if isinstance(scale, Tensor) and scale.requires_grad:
        raise ConfigError(
            f"a learnt temperature works with a cross-batch memory for distance='cosine' or 'dot', not "
            f"{distance.value!r}; give the loss a temperature that is a number, or leave out xbm"
        )
    return anchors, float(scale)


class MemorySearch:
    """The similarities of anchors to a memory, a block of anchors at a time, and the way back.

    Args:
        memory: The remembered rows.
        distance: What similarities are.
        scale: Factor of the similarities; 1 for cosines and dot products, where it is the anchors'.
        excluded: Labels of the anchors and of the memory rows: where two are equal, the row takes no part.
        own: Memory rows that take no part for an anchor, as a matrix.
    """

    def __init__(
        self,
        memory: MemoryRows,
        distance: Distance,
        scale: float,
        excluded: Sequence[tuple[Tensor, Tensor]],
        own: Tensor | None = None,
    ) -> None:
        self.memory, self.distance, self.scale, self.own = memory, distance, scale, own
        self.excluded = [LabelIndex(labels, others) for labels, others in excluded]
        self.inverse_lengths: Tensor | None = None

    def fill(self, anchors: Tensor, block: Tensor, first: int, last: int) -> None:
        """Compute the similarities of some anchors into a block; ``-inf`` where a row takes no part."""
        for part, tile in self.memory.tiles(anchors.dtype):
            if self.distance in (Distance.COSINE, Distance.DOT):
                torch.mm(anchors, tile.T, out=block[:, part])
            else:
                torch.mul(similarity_matrix(anchors, tile, self.distance), self.scale, out=block[:, part])
        if self.distance is Distance.COSINE:
            block.mul_(self._inverse_lengths(block.dtype))
        for places in self._own_places(first, last):
            block[places] = -torch.inf

    def gradient(self, anchors: Tensor, part: Part, block: Tensor) -> Tensor:
        """Derivative of a part of the loss by the anchors of a block."""
        n_listed = len(part.rows)
        if part.dense is None and n_listed * 16 <= block.numel():
            return self._listed_gradient(anchors, part)
        slope = part.dense_slope(block)
        if self.distance is Distance.COSINE:
            slope.mul_(self._inverse_lengths(slope.dtype))
        gradient = torch.zeros_like(anchors)
        for columns, tile in self.memory.tiles(anchors.dtype):
            if self.distance in (Distance.COSINE, Distance.DOT):
                gradient.addmm_(slope[:, columns], tile)
            else:
                gradient += self._through_matrix(anchors, tile, slope[:, columns])
        return gradient

    def _listed_gradient(self, anchors: Tensor, part: Part) -> Tensor:
        gradient = torch.zeros_like(anchors)
        for start in range(0, len(part.rows), _LISTED):
            listed = slice(start, start + _LISTED)
            rows, columns, slopes = part.rows[listed], part.columns[listed], part.slopes[listed].unsqueeze(1)
            found = self.memory.pick(columns, anchors.dtype)
            if self.distance is Distance.COSINE:
                slopes = slopes * self._inverse_lengths(anchors.dtype)[columns].unsqueeze(1)
            if self.distance in (Distance.COSINE, Distance.DOT):
                gradient.index_add_(0, rows, found.mul_(slopes))
            else:
                gradient.index_add_(0, rows, self._through_pairs(anchors[rows], found, slopes.squeeze(1)))
        return gradient

    def _through_matrix(self, anchors: Tensor, tile: Tensor, slope: Tensor) -> Tensor:
        with torch.enable_grad():
            anchors = anchors.detach().requires_grad_()
            similarities = similarity_matrix(anchors, tile, self.distance)
        return torch.autograd.grad(similarities, anchors, slope * self.scale)[0]

    def _through_pairs(self, anchors: Tensor, found: Tensor, slopes: Tensor) -> Tensor:
        with torch.enable_grad():
            anchors = anchors.detach().requires_grad_()
            distances = pair_distances(anchors, found, self.distance)
        return torch.autograd.grad(distances, anchors, slopes * -self.scale)[0]

    def _own_places(self, first: int, last: int) -> list[tuple[Tensor, Tensor]]:
        given = [] if self.own is None else [mask_places(self.own[first:last])]
        return [*given, *(index.pairs(first, last) for index in self.excluded)]

    def _inverse_lengths(self, dtype: torch.dtype) -> Tensor:
        if self.inverse_lengths is None:
            self.inverse_lengths = self.memory.inverse_lengths(dtype)
        return self.inverse_lengths


def blocks_of(anchors: Tensor, search: MemorySearch) -> Iterator[tuple[int, int, Tensor]]:
    """First and last anchor of each block, and the block, whose space is used over and over."""
    n_memory = len(search.memory)
    n_rows = min(len(anchors), max(BLOCK // n_memory, _FEWEST_ROWS))
    space = anchors.new_empty(n_rows, n_memory)
    for first in range(0, len(anchors), n_rows):
        last = min(first + n_rows, len(anchors))
        yield first, last, space[: last - first]


class _AgainstMemory(torch.autograd.Function):
    """The loss, and along with it the gradient: nothing of the memory is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, anchors: Tensor, search: MemorySearch, same_group: LabelIndex, terms: RowTerms) -> Tensor:
        totals: list[list[Tensor]] = []
        gradients: list[Tensor] = []
        for first, last, block in blocks_of(anchors, search):
            some = anchors[first:last]
            search.fill(some, block, first, last)
            parts = terms(block, take_positives(block, *same_group.pairs(first, last)))
            totals = totals or [[anchors.new_zeros(()), anchors.new_zeros((), dtype=torch.long)] for _ in parts]
            gradients = gradients or [torch.empty_like(anchors) for _ in parts]
            for part, sums, gradient in zip(parts, totals, gradients, strict=True):
                sums[0] += part.total
                sums[1] += part.count
                gradient[first:last] = search.gradient(some, part, block)
        shares = [sums[1].clamp(min=1).to(anchors.dtype).reciprocal() for sums in totals]
        ctx.save_for_backward(sum(g.mul_(share) for g, share in zip(gradients, shares, strict=True)))
        value = torch.stack([sums[0] * share for sums, share in zip(totals, shares, strict=True)]).sum()
        return value + _nan_of(anchors)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return grad_outputs[0] * gradient, None, None, None


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
        terms: As in :func:`against_memory`.
    """
    value: Tensor = _WithinBatch.apply(similarities, positive, ignored, terms)  # type: ignore[no-untyped-call]
    return value


class _WithinBatch(torch.autograd.Function):
    """As :class:`_AgainstMemory`, but of one block, and the gradient is that of the similarities."""

    @staticmethod
    def forward(
        ctx: Any, similarities: Tensor, positive: tuple[Tensor, Tensor], ignored: Tensor | None, terms: RowTerms
    ) -> Tensor:
        spoilt = _nan_of(similarities)
        block = _blanked(similarities.detach(), ignored)
        parts = terms(block, take_positives(block, *positive))
        shares = [part.count.clamp(min=1).to(block.dtype).reciprocal() for part in parts]
        slopes = [part.dense_slope(block).mul_(share) for part, share in zip(parts, shares, strict=True)]
        ctx.save_for_backward(slopes[0] if len(slopes) == 1 else sum(slopes))
        value = torch.stack([part.total * share for part, share in zip(parts, shares, strict=True)]).sum()
        return value + spoilt

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return grad_outputs[0] * slope, None, None, None


def _blanked(block: Tensor, ignored: Tensor | None) -> Tensor:
    return block.fill_diagonal_(-torch.inf) if ignored is None else block.masked_fill_(ignored, -torch.inf)


def picked_pairs(
    embeddings: Float[Tensor, "batch dim"], positive: tuple[Tensor, Tensor], terms: RowTerms, distance: Distance
) -> Float[Tensor, ""]:
    """Loss of a batch, of which only a few pairs have a slope: the gradient runs through these, not through a matrix.

    Args:
        embeddings: Shape ``(batch, dim)``, at least one row.
        positive: Rows and columns of the pairs of one group.
        terms: As in :func:`against_memory`.
        distance: One of :class:`Distance`.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        wide = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
        if distance is Distance.COSINE:  # the same dot products, and each row is brought to length 1 once
            wide, distance = unit_vectors(wide), Distance.DOT
        with torch.no_grad():
            block = _blanked(similarity_matrix(wide, wide, distance), None)
            parts = terms(block, take_positives(block, *positive))
        values = [_of_listed(wide, part, distance) for part in parts]
        return torch.stack(values).sum() + _nan_of(wide)


def _of_listed(embeddings: Tensor, part: Part, distance: Distance) -> Tensor:
    similarities = -pair_distances(embeddings[part.rows], embeddings[part.columns], distance)
    sloped = (part.slopes * similarities).sum()
    # The value of the block, and the slopes of the pairs.
    return (part.total + (sloped - sloped.detach())) / part.count.clamp(min=1)


def _nan_of(values: Tensor) -> Tensor:
    # What is not finite is to be noticed, also where sorting and counting would pass it over.
    return values.sum() * 0
