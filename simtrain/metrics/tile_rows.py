"""The embeddings of tiles, gathered once where there is room for them."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from simtrain.metrics.class_tiles import ClassTile
from simtrain.metrics.similarities import Similarities


class TileRows:
    """Rows of each tile as they are compared, filled up with rows of zeros.

    Args:
        similarities: Whose gallery items the tiles hold.
        tiles: The tiles.
        side: Rows to fill up to.
        n_kept: Of so many tiles, the first ones, rows are kept once they are gathered.
    """

    def __init__(self, similarities: Similarities, tiles: Sequence[ClassTile], side: int, n_kept: int) -> None:
        self._similarities, self._tiles, self._side, self._n_kept = similarities, tiles, side, n_kept
        self._kept: dict[int, Tensor] = {}

    def __getitem__(self, at: int) -> Float[Tensor, "side dim"]:
        rows = self._kept.get(at)
        if rows is None:
            rows = self._similarities.padded_rows(self._tiles[at].items, self._side)
            if at < self._n_kept:
                self._kept[at] = rows
        return rows
