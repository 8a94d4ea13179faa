"""Scores of queries against the gallery, a block at a time, with the same bits whatever the block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from simtrain.errors import ConfigError, nearest
from simtrain.metrics.scaled_rows import ScaledRows
from simtrain.metrics.vectors import check_range, common_dtype

KnownDistance = Literal["cosine", "dot", "euclidean"]
Distance = KnownDistance | str  # names come from configs, too: unknown ones are told below

# The last bits of a matrix product depend on its shape and, at ragged edges, on the position in it. So every
# product has one fixed shape, padded where needed, and sides that are multiples of 48: whole micro-kernels for the
# usual 4, 6, 8, 12, 16 and 24 wide ones. Equal rows then get equal scores, and memory budgets do not show.
STEP = 48
# Large enough for the speed of one product over the whole gallery, small enough for any budget.
TILES = {"cpu": (192, 3072)}
OTHER_TILE = (768, 6144)


class Similarities:
    """Scores of every query with every gallery item; higher is nearer.

    Args:
        queries: Shape ``(queries, dim)``, float32 or float64.
        gallery: Shape ``(gallery, dim)``. May be the same tensor as ``queries``.
        distance: ``"cosine"`` (rows of zeros score 0 with everything), ``"dot"``, or ``"euclidean"`` (the score is
            the negative distance, summed from differences, so that near items keep their order).

    Attributes:
        among_themselves: Whether queries and gallery are the same tensor.
        distance: As given.
        tile: Rows and columns of one product.

    Raises:
        ConfigError: Unknown distance.
        DataError: Dimensions or devices differ, or products would overflow.
    """

    def __init__(
        self,
        queries: Float[Tensor, "queries dim"],
        gallery: Float[Tensor, "gallery gallery_dim"],
        distance: Distance = "cosine",
    ) -> None:
        if distance not in get_args(KnownDistance):
            raise ConfigError(f"unknown distance {distance!r}; {nearest(str(distance), get_args(KnownDistance))}")
        self.among_themselves = queries is gallery
        queries, gallery = common_dtype(queries, gallery)
        if distance != "cosine":
            check_range(queries, gallery)
        self._gallery = ScaledRows(gallery, unit=distance == "cosine")
        self._queries = self._gallery if self.among_themselves else ScaledRows(queries, unit=distance == "cosine")
        self.distance = distance
        largest = TILES.get(gallery.device.type, OTHER_TILE)
        self.tile = (_tile_side(len(queries), largest[0], even=False), _tile_side(len(gallery), largest[1], even=True))

    @property
    def n_gallery(self) -> int:
        """Size of the gallery."""
        return len(self._gallery)

    @property
    def n_queries(self) -> int:
        """Number of queries."""
        return len(self._queries)

    @property
    def dim(self) -> int:
        """Dimensions of the embeddings."""
        return self._gallery.dim

    @property
    def dtype(self) -> torch.dtype:
        """The scores' dtype: float32 or float64."""
        return self._gallery.dtype

    @property
    def device(self) -> torch.device:
        """Device of the scores."""
        return self._gallery.device

    def query_rows(self, rows: slice | Int64[Tensor, " some"]) -> Float[Tensor, "some dim"]:
        """Some queries, as they are compared: at unit length for cosine."""
        return self._queries[rows]

    def gallery_rows(self, rows: slice | Int64[Tensor, " some"]) -> Float[Tensor, "some dim"]:
        """Some gallery items, as they are compared."""
        return self._gallery[rows]

    def block(
        self, queries: Int64[Tensor, " rows"], start: int, stop: int, buffer: Tensor | None = None
    ) -> Float[Tensor, "rows padded"]:
        """Scores of some queries with the gallery's items from ``start`` (a multiple of the tile) to ``stop``.

        Args:
            queries: Their indices.
            start: First gallery item.
            stop: One past the last.
            buffer: Flat memory to write to, of at least as many scores as the tiles have; None makes it.

        Returns:
            Scores; the columns fill whole tiles, those past ``stop`` hold minus infinity.
        """
        height, width = self.tile
        rows = self._queries[queries]
        shape = (round_up(len(rows), height), round_up(stop - start, width))
        buffer = rows.new_empty(shape[0] * shape[1]) if buffer is None else buffer
        scores = buffer[: shape[0] * shape[1]].view(shape)
        with full_precision(rows.device.type):
            for column in range(start, stop, width):
                right = _padded(self._gallery[column : min(column + width, stop)], width)
                for top in range(0, len(rows), height):
                    left = _padded(rows[top : top + height], height)
                    self.between(left, right, scores[top : top + height, column - start : column - start + width])
        scores[:, stop - start :] = -torch.inf
        return scores[: len(rows)]

    def padded_rows(self, items: Int64[Tensor, " some"], side: int) -> Float[Tensor, "side dim"]:
        """Some gallery items, as they are compared, filled up with rows of zeros."""
        return _padded(self._gallery[items], side)

    def between(self, left: Float[Tensor, "rows dim"], right: Float[Tensor, "columns dim"], out: Tensor) -> None:
        """Write the scores of some rows with others, as they are compared; call it in :func:`full_precision`.

        Args:
            left: Those of the scores' rows, a multiple of :data:`STEP` of them.
            right: Those of the columns, likewise.
            out: Shape ``(rows, columns)``.
        """
        if self.distance == "euclidean":
            # |q|^2 - 2qg + |g|^2 would cancel for near items: differences keep them apart.
            out.copy_(torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist").neg_())
        else:
            torch.mm(left, right.T, out=out)


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """Products in all digits of their dtype, without gradients, whatever the surroundings have set."""
    # Validation often runs under autocast and "high" matmul precision: both would round the scores.
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad(), torch.autocast(device_type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def round_up(size: int, step: int) -> int:
    """The multiple of ``step`` that is at least ``size``.

    Example:
        >>> round_up(100, 48)
        144
    """
    return -(-size // step) * step


def _tile_side(size: int, largest: int, *, even: bool) -> int:
    # Columns of the last tile that is not full cost as much as others: tiles of about equal width waste few.
    tiles = max(1, -(-size // largest)) if even else 1
    return max(STEP, min(largest, round_up(-(-size // tiles), STEP)))


def _padded(rows: Tensor, size: int) -> Tensor:
    if len(rows) == size:
        return rows
    return torch.cat([rows, rows.new_zeros(size - len(rows), rows.shape[1])])
