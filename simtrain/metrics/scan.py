"""Walking over queries and gallery in blocks that fit a memory budget."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from simtrain.errors import ConfigError
from simtrain.metrics.exclusion import Exclusion
from simtrain.metrics.selection import merge_top, select_top
from simtrain.metrics.similarities import Similarities

MEMORY_BUDGET = 64 * 2**20


class Scan:
    """The scores of one block of queries with the whole gallery; may be walked through more than once.

    Excluded pairs score minus infinity. Scores are kept where the gallery is one block, else computed again.

    Args:
        similarities: Where the scores come from.
        exclusion: What to leave out.
        queries: Indices of the block's queries.
        columns: Gallery items a block, a multiple of the tile.
    """

    def __init__(
        self, similarities: Similarities, exclusion: Exclusion, queries: Int64[Tensor, " rows"], columns: int
    ) -> None:
        self._similarities, self._exclusion, self._columns = similarities, exclusion, columns
        self.queries = queries
        self._kept: Tensor | None = None

    @property
    def n_gallery(self) -> int:
        """Size of the gallery."""
        return self._similarities.n_gallery

    def __iter__(self) -> Iterator[tuple[int, Float[Tensor, "rows columns"]]]:
        """Yield the first column and the scores of each gallery block."""
        if self._kept is not None:
            yield 0, self._kept
            return
        for start in range(0, self.n_gallery, self._columns):
            scores = self._block(start, min(start + self._columns, self.n_gallery))
            self._kept = scores if scores.shape[1] == self.n_gallery else None
            yield start, scores

    def top(self, k: int) -> tuple[Float[Tensor, "rows k"], Int64[Tensor, "rows k"]]:
        """Best ``k`` (at most the gallery's size) of every query: scores and indices; excluded ones have index -1."""
        rows = len(self.queries)
        best = torch.empty(rows, 0, dtype=self._similarities.dtype, device=self._similarities.device)
        indices = torch.empty(rows, 0, dtype=torch.int64, device=self._similarities.device)
        for start, scores in self if k else ():
            values, columns = select_top(scores, min(k, scores.shape[1]))
            best, indices = merge_top(best, indices, values, columns + start, k) if start else (values, columns)
        return best, indices.masked_fill_(best.isneginf(), -1)

    def _block(self, start: int, stop: int) -> Tensor:
        scores = self._similarities.block(self.queries, start, stop)
        scores[self._exclusion.own_places(self.queries, start, stop)] = -torch.inf
        if self._exclusion.has_mask:
            scores.masked_fill_(self._exclusion.mask(self.queries, start, stop), -torch.inf)
        return scores


def block_sizes(similarities: Similarities, depth: int, memory_budget: int) -> tuple[int, int]:
    """Queries and gallery items a block, multiples of the tile; never less than one tile.

    Args:
        similarities: Where the scores come from.
        depth: Results kept for each query.
        memory_budget: Bytes for scores and results.

    Returns:
        Rows and columns.

    Raises:
        ConfigError: The budget is not a positive number of bytes.
    """
    if memory_budget <= 0:
        raise ConfigError(f"memory_budget is a positive number of bytes, got {memory_budget}")
    height, width = similarities.tile
    itemsize = torch.finfo(similarities.dtype).bits // 8
    score_bytes = itemsize + 2  # beside a score: its exclusion mask and a comparison
    result_bytes = 4 * depth * (itemsize + 8)  # old, new, both joined and the selection's own copy
    whole = -(-similarities.n_gallery // width) * width
    a_row = max(1, whole * score_bytes + result_bytes)
    if height * a_row <= memory_budget:
        return memory_budget // a_row // height * height, whole
    room = (memory_budget // height - result_bytes) // score_bytes
    return height, max(width, room // width * width)
