"""Losses against a memory, a block of anchors at a time: no matrix of batch x memory, and no graph over the memory.

In the forward pass, the similarities of a few anchors to the whole memory are computed into one block, which is used
over and over; the loss turns it into its value and slopes, and the slopes at once into the gradient of these anchors.
So two matrix products are all there is, as in a plain similarity matrix and its backward pass, and peak memory is a
few blocks, whatever the size of batch and memory.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from simtrain.errors import ConfigError
from simtrain.losses.anchor_vectors import AnchorVectors, keep_gradients, kept_gradients
from simtrain.losses.distances import Distance, pair_distances, similarity_matrix
from simtrain.losses.equal_pairs import LabelIndex
from simtrain.losses.memory_rows import MemoryRows
from simtrain.losses.row_terms import Part, RowTerms, mask_places, nan_of, take_positives
from simtrain.losses.weighted_sums import LISTED_COST, weighted_sums

#: Entries of a block: 32 MB in float32.
BLOCK = 1 << 23
#: Fewest anchors a block, where the batch has as many: matrix products of fewer rows are slow.
_FEWEST_ROWS = 64
#: Products that are scaled at a time, so that they are in the processor's cache.
_IN_CACHE = 1 << 16
#: Fewest columns of a tile: matrix products of fewer are slow.
_FEWEST_COLUMNS = 1_024
#: Slopes that are turned into a gradient at a time: adding to it costs more than scaling them.
_SLOPES = 1 << 18
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
    excluded = [] if items is None else [(items, memory.items)]
    search = MemorySearch(memory, Distance.of(distance), scale, excluded, own)
    same_group = LabelIndex(groups, memory.groups)
    with torch.autocast(anchors.device.type, enabled=False):
        value: Tensor = _AgainstMemory.apply(anchors, scale, search, same_group, terms)  # type: ignore[no-untyped-call]
    return value


class MemorySearch:
    """The similarities of anchors to a memory, a block of anchors at a time, and the way back.

    Args:
        memory: The remembered rows.
        distance: What similarities are: cosines, dot products or negated distances.
        scale: Factor of the similarities.
        excluded: Labels of the anchors and of the memory rows: where two are equal, the row takes no part.
        own: Memory rows that take no part for an anchor, as a matrix.

    Raises:
        ConfigError: The scale is learnt, and similarities are negated distances.
    """

    def __init__(
        self,
        memory: MemoryRows,
        distance: Distance,
        scale: Tensor | float,
        excluded: Sequence[tuple[Tensor, Tensor]],
        own: Tensor | None = None,
    ) -> None:
        self.memory, self.distance, self.own = memory, distance, own
        self.is_product = distance in (Distance.COSINE, Distance.DOT)
        # Products are scaled along with the anchors.
        self.anchor_scale, self.scale = (scale, 1.0) if self.is_product else (1.0, _constant(scale, distance))
        self.excluded = [LabelIndex(labels, others) for labels, others in excluded]
        self.inverse_lengths: Tensor | None = None

    def vectors(self, anchors: Tensor) -> AnchorVectors:
        """What the anchors are searched by."""
        return AnchorVectors.of(anchors, self.distance, self.anchor_scale, self.memory.embeddings.dtype)

    def fill(self, anchors: Tensor, block: Tensor, first: int, last: int) -> None:
        """Compute the similarities of some anchors into a block; ``-inf`` where a row takes no part."""
        for part, tile in self.memory.tiles(anchors.dtype):
            if self.is_product:
                self._fill_products(anchors, tile, part, block[:, part])
            else:
                torch.mul(similarity_matrix(anchors, tile, self.distance), self.scale, out=block[:, part])
        for rows, columns in self._own_places(first, last):
            if len(rows) > 0:
                block.view(-1).index_fill_(0, columns.add(rows, alpha=block.shape[1]), -torch.inf)

    def _fill_products(self, anchors: Tensor, tile: Tensor, part: slice, block: Tensor) -> None:
        if self.distance is Distance.DOT:
            torch.mm(anchors, tile.t(), out=block)
            return
        # A few columns at a time, which are scaled while they are in the processor's cache.
        size = max(_IN_CACHE // len(anchors), _FEWEST_COLUMNS)
        inverse = self._inverse_lengths(block.dtype)[part]
        columns = (torch.split(block, size, 1), torch.split(tile.t(), size, 1), torch.split(inverse, size))
        for products, some, factors in zip(*columns, strict=True):
            torch.mm(anchors, some, out=products).mul_(factors)

    def gradient(self, anchors: Tensor, part: Part, block: Tensor, *, is_free: bool = False) -> Tensor:
        """Derivative of a part of the loss by the anchors of a block, which may be written to where it is free."""
        n_listed = part.rows.shape[0]
        if part.dense is None and n_listed == 0:
            return torch.zeros_like(anchors)
        if part.dense is None and n_listed * LISTED_COST <= block.numel():
            return self._listed_gradient(anchors, part)
        slope = part.dense_slope(block, is_free=is_free)
        gradient = torch.zeros_like(anchors)
        for columns, tile in self.memory.tiles(anchors.dtype):
            if self.is_product:
                self._add_products(gradient, slope[:, columns], tile, columns)
            else:
                gradient += self._through_matrix(anchors, tile, slope[:, columns])
        return gradient

    def _add_products(self, gradient: Tensor, slope: Tensor, tile: Tensor, part: slice) -> None:
        if self.distance is Distance.DOT:
            gradient.addmm_(slope, tile)
            return
        size = max(_SLOPES // len(slope), 1)
        inverse = self._inverse_lengths(slope.dtype)[part]
        columns = (torch.split(slope, size, 1), torch.split(tile, size), torch.split(inverse, size))
        for slopes, some, factors in zip(*columns, strict=True):
            gradient.addmm_(slopes.mul_(factors), some)

    def _listed_gradient(self, anchors: Tensor, part: Part) -> Tensor:
        rows, columns, slopes = part.rows, part.columns, part.slopes
        if self.distance is Distance.COSINE:
            slopes = slopes * self._inverse_lengths(anchors.dtype).index_select(0, columns)
        if self.is_product and anchors.device.type == "cpu" and self.memory.embeddings.dtype == anchors.dtype:
            return weighted_sums(rows, columns, slopes, self.memory.embeddings.detach(), len(anchors))
        gradient = torch.zeros_like(anchors)
        for start in range(0, len(rows), _LISTED):
            listed = slice(start, start + _LISTED)
            found = self.memory.pick(columns[listed], anchors.dtype)
            if self.is_product:
                gradient.index_add_(0, rows[listed], found.mul_(slopes[listed].unsqueeze(1)))
            else:
                some = anchors.index_select(0, rows[listed])
                gradient.index_add_(0, rows[listed], self._through_pairs(some, found, slopes[listed]))
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


class _KeptSpace(threading.local):
    """The space of the last block: fresh pages for each step would cost as much as the similarities."""

    tensor: Tensor | None = None


_KEPT = _KeptSpace()


def release_space() -> None:
    """Give the work space back, which on a CPU is kept from one step to the next.

    Example:
        >>> release_space()
    """
    _KEPT.tensor = None


@contextmanager
def _lent_space(n_entries: int, like: Tensor) -> Iterator[Tensor]:
    if like.device.type != "cpu":  # allocators of devices keep what was freed
        yield like.new_empty(n_entries)
        return
    space, _KEPT.tensor = _KEPT.tensor, None  # lent to one search at a time
    if space is None or space.dtype != like.dtype or len(space) < n_entries:
        space = like.new_empty(n_entries)
    yield space
    if not space.is_inference():  # such a tensor could not be written to in training
        _KEPT.tensor = space


def _constant(scale: Tensor | float, distance: Distance) -> float:
    if isinstance(scale, Tensor) and scale.requires_grad:
        raise ConfigError(
            f"a learnt temperature works with a cross-batch memory for distance='cosine' or 'dot', not "
            f"{distance.value!r}; give the loss a temperature that is a number, or leave out xbm"
        )
    return float(scale)


def blocks_of(anchors: Tensor, search: MemorySearch) -> Iterator[tuple[int, int, Tensor]]:
    """First and last anchor of each block, and the block, whose space is used over and over."""
    n_memory = len(search.memory)
    n_rows = min(len(anchors), max(BLOCK // n_memory, _FEWEST_ROWS))
    with _lent_space(n_rows * n_memory, anchors) as space:
        for first in range(0, len(anchors), n_rows):
            last = min(first + n_rows, len(anchors))
            yield first, last, space[: (last - first) * n_memory].view(last - first, n_memory)


class _AgainstMemory(torch.autograd.Function):
    """The loss, and along with it the gradient: nothing of the memory is kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        scale: Tensor | float,
        search: MemorySearch,
        same_group: LabelIndex,
        terms: RowTerms,
    ) -> Tensor:
        prepared = search.vectors(anchors)
        blocks: list[list[tuple[Tensor, Tensor]]] = []
        gradients: list[list[Tensor]] = []
        needs_gradient = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        for first, last, block in blocks_of(prepared.vectors, search):
            some = prepared.vectors[first:last]
            search.fill(some, block, first, last)
            parts = terms(block, take_positives(block, *same_group.pairs(first, last)))
            blocks.append([(part.total, part.count) for part in parts])
            if needs_gradient:
                # Where a part's slopes are the block, it is no space for another's.
                is_free = all(part.dense is None for part in parts)
                gradients.append([search.gradient(some, part, block, is_free=is_free) for part in parts])
        totals, counted = zip(
            *(map(_added, zip(*part, strict=True)) for part in zip(*blocks, strict=True)), strict=True
        )
        counts = [count.clamp(min=1) for count in counted]
        if needs_gradient:
            whole = [torch.cat(rows) if len(rows) > 1 else rows[0] for rows in zip(*gradients, strict=True)]
            keep_gradients(ctx, prepared, _quotients(whole, counts))
        ctx.dtype = anchors.dtype
        return _quotients(totals, counts) + nan_of(prepared.vectors)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        return (*kept_gradients(ctx, grad_outputs[0]), None, None, None)


def _added(numbers: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(numbers)).sum() if len(numbers) > 1 else numbers[0]


def _quotients(values: Sequence[Tensor], counts: Sequence[Tensor]) -> Tensor:
    # In place: what is added up is not used again.
    return functools.reduce(Tensor.add_, (value.div_(count) for value, count in zip(values, counts, strict=True)))
