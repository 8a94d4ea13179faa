"""Walking over queries and gallery in blocks that fit a memory budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from simtrain.errors import ConfigError
from simtrain.metrics.exclusion import Exclusion
from simtrain.metrics.selection import merge_top, select_top
from simtrain.metrics.similarities import Similarities, round_up

MEMORY_BUDGET = 160 * 2**20
# More rows at once would leave the processor's cache between the product and the selection.
CACHED_BYTES = 24 * 2**20


class Workspace:
    """Memory that block after block is written to, since fresh memory costs about as much as the product itself."""

    def __init__(self) -> None:
        self._buffers: dict[torch.dtype, Tensor] = {}

    def flat(self, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """At least ``size`` numbers, which the next call for the dtype hands out again."""
        known = self._buffers.get(dtype)
        if known is None or len(known) < size or known.device != device:
            self._buffers.pop(dtype, None)
            self._buffers[dtype] = torch.empty(size, dtype=dtype, device=device)
        return self._buffers[dtype]


class Scan:
    """The scores of one block of queries with the whole gallery; may be walked through more than once.

    Excluded pairs score minus infinity. Scores are kept where the gallery is one block, else computed again.

    Args:
        similarities: Where the scores come from.
        exclusion: What to leave out.
        queries: Indices of the block's queries.
        columns: Gallery items a block, a multiple of the tile.
        workspace: Memory to write scores to. They are overwritten by the next scan with this workspace.
    """

    def __init__(
        self,
        similarities: Similarities,
        exclusion: Exclusion,
        queries: Int64[Tensor, " rows"],
        columns: int,
        workspace: Workspace | None = None,
    ) -> None:
        self._similarities, self._exclusion, self._columns = similarities, exclusion, columns
        self._workspace = workspace or Workspace()
        self.queries = queries
        self._kept: Tensor | None = None

    @property
    def n_gallery(self) -> int:
        """Size of the gallery."""
        return self._similarities.n_gallery

    @property
    def in_one_block(self) -> bool:
        """Whether the scores of the whole gallery are kept."""
        return self._columns >= self.n_gallery

    def __iter__(self) -> Iterator[tuple[int, Float[Tensor, "rows columns"]]]:
        """Yield the first column and the scores of each gallery block; columns past the gallery are excluded."""
        if self._kept is not None:
            yield 0, self._kept
            return
        for start in range(0, self.n_gallery, self._columns):
            scores = self._block(start, min(start + self._columns, self.n_gallery))
            self._kept = scores if self.in_one_block else None
            yield start, scores

    def top(
        self, k: int, watch: Callable[[int, Tensor], object] | None = None
    ) -> tuple[Float[Tensor, "rows k"], Int64[Tensor, "rows k"]]:
        """Best ``k`` (at most the gallery's size) of every query: scores and indices; excluded ones have index -1.

        Args:
            k: How many.
            watch: Is called with the first column and the scores of each block.
        """
        rows = len(self.queries)
        best = torch.empty(rows, 0, dtype=self._similarities.dtype, device=self._similarities.device)
        indices = torch.empty(rows, 0, dtype=torch.int64, device=self._similarities.device)
        for start, scores in self if k else ():
            if watch is not None:
                watch(start, scores)
            above = best[:, -1:] if best.shape[1] == k else None
            values, columns = select_top(scores, min(k, scores.shape[1]), above)
            best, indices = merge_top(best, indices, values, columns + start, k) if start else (values, columns)
        return best, indices.masked_fill_(best.isneginf(), -1)

    def _block(self, start: int, stop: int) -> Tensor:
        buffer = self._workspace.flat(self._block_size, self._similarities.dtype, self._similarities.device)
        scores = self._similarities.block(self.queries, start, stop, buffer)
        scores[self._exclusion.own_places(self.queries, start, stop)] = -torch.inf
        if self._exclusion.has_mask:
            width = self._similarities.tile[1]
            for first in range(start, stop, width):
                last = min(first + width, stop)
                mask = self._exclusion.mask(self.queries, first, last)
                scores[:, first - start : last - start].masked_fill_(mask, -torch.inf)
        return scores

    @property
    def _block_size(self) -> int:
        height, width = self._similarities.tile
        return round_up(len(self.queries), height) * round_up(min(self._columns, self.n_gallery), width)


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
    score_bytes = itemsize + 1  # beside a score: maxima of folds, and what is compared at a time
    result_bytes = 4 * depth * (itemsize + 8)  # old, new, both joined and the selection's own copy
    whole = round_up(similarities.n_gallery, width)
    a_row = max(1, whole * score_bytes + result_bytes)
    if height * a_row <= memory_budget:
        cached = max(height, CACHED_BYTES // max(1, whole * itemsize) // height * height)
        return min(cached, memory_budget // a_row // height * height), whole
    room = (memory_budget // height - result_bytes) // score_bytes
    return height, max(width, room // width * width)
