"""Ranking items among themselves: each score is computed once and serves the rankings of both of its items."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from simtrain.metrics.class_tiles import ClassTile, class_tiles
from simtrain.metrics.comparison import ROWS
from simtrain.metrics.exclusion import Exclusion
from simtrain.metrics.ranking import Ranked, rank
from simtrain.metrics.relevance import LabelRelevance, Relevance
from simtrain.metrics.running_ranks import RunningRanks, kept_others
from simtrain.metrics.scan import MEMORY_BUDGET
from simtrain.metrics.similarities import STEP, Similarities, full_precision
from simtrain.metrics.square import Square
from simtrain.metrics.threads import MOST_THREADS, in_threads
from simtrain.metrics.tile_rows import TileRows
from simtrain.models.progress import Progress

# Squares stay in the processor's cache between the product and the two looks at it.
SIDE = 1296
# Below this many items there is little to gain.
LEAST_ITEMS = 6000
# Classes, and ranks looked at, of at most this share of a square: tiles hold whole classes and are to be full.
LARGEST_SHARE = 3
# Part of the memory that may be taken by embeddings at unit length, which else are made for each product anew.
ROWS_SHARE = 8


def ranks_mutually(similarities: Similarities, relevance: Relevance, exclusion: Exclusion, depth: int) -> bool:
    """Whether :func:`rank_mutually` can do what :func:`~simtrain.metrics.ranking.rank` is asked for.

    It can where items on a CPU are searched among themselves by labels, nothing but an item itself is left out, and
    neither classes nor depth are large.
    """
    n = similarities.n_gallery
    if not similarities.among_themselves or similarities.device.type != "cpu" or n < LEAST_ITEMS:
        return False
    if not isinstance(relevance, LabelRelevance) or relevance.labels is None or not exclusion.is_own(n):
        return False
    return max(depth, int(relevance.counts().max())) <= SIDE // LARGEST_SHARE


def rank_mutually(
    similarities: Similarities,
    relevance: Relevance,
    exclusion: Exclusion,
    *,
    depth: int = 1,
    memory_budget: int = MEMORY_BUDGET,
    show_progress: bool | None = False,
) -> Iterator[Ranked]:
    """Rank all items for each of them that has a relevant one; see :func:`~simtrain.metrics.ranking.rank`.

    Items are sorted into tiles of whole classes. The product of a tile with itself gives the scores of all relevant
    pairs. Those of two tiles are of pairs that are not relevant: of each, what may stand before a relevant item is kept
    for the queries in its rows and for those in its columns. That halves the products. Where what is kept of all
    queries exceeds ``memory_budget``, as many tiles are ranked together as it holds.

    Yields:
        The queries of a tile; at the end those that had to be searched one by one, because of ties.
    """
    assert isinstance(relevance, LabelRelevance)
    assert relevance.labels is not None
    side, tiles = class_tiles(relevance.labels, SIDE, STEP)
    itemsize = torch.finfo(similarities.dtype).bits // 8
    workspace = (side + ROWS) * side * itemsize
    threads = max(1, min(MOST_THREADS, torch.get_num_threads(), memory_budget // 2 // workspace))
    kept = memory_budget // ROWS_SHARE
    rows = TileRows(similarities, tiles, side, kept // (side * similarities.dim * itemsize))
    groups = list(_groups(tiles, depth, (memory_budget - kept - threads * workspace) // itemsize))
    unsure = []
    with Progress("ranking, squares of scores", _n_squares(groups, len(tiles)), show_progress) as progress:
        for group in groups:
            search = _Search(similarities, tiles, rows, group, depth)
            for ranked, missing in search.run(threads, lambda: progress.advance(1)):
                unsure.append(missing)
                yield ranked
    rest = torch.cat(unsure).sort().values
    if len(rest):
        # They are few, and what was kept till now may not be given back to the system yet.
        room = max(memory_budget // 8, 1)
        yield from rank(similarities, relevance, exclusion, depth=depth, queries=rest, memory_budget=room)


class _Search:
    """The search of one group of tiles among all tiles."""

    def __init__(
        self, similarities: Similarities, tiles: list[ClassTile], rows: TileRows, group: range, depth: int
    ) -> None:
        self._similarities, self._tiles, self._rows = similarities, tiles, rows
        self._group, self._depth = group, depth
        self._ranks: dict[int, RunningRanks] = {}
        self._found: dict[int, tuple[Ranked, Tensor]] = {}
        self._own = threading.local()

    def run(self, threads: int, done: Callable[[], object]) -> Iterable[tuple[Ranked, Tensor]]:
        """Look at all squares; ``done`` is called for each.

        Returns:
            Of each tile, what is known of its queries, and which of them are not known for sure.
        """
        inside = [(first, second) for first, second in _disjoint_pairs(self._group)]
        outside = [
            (first, second) for second in range(len(self._tiles)) if second not in self._group for first in self._group
        ]
        with full_precision("cpu"):
            in_threads(self._start, self._group, done, threads)
            in_threads(self._meet, inside + outside, done, threads)
            in_threads(self._finish, self._group, most=threads)
        return self._found.values()

    def _start(self, at: int) -> None:
        tile = self._tiles[at]
        scores = self._scores(at, at)
        scores.fill_diagonal_(-torch.inf)
        most = int(tile.size.max())
        offset = torch.arange(most)
        rows = torch.arange(len(tile.items))[:, None]
        # Places past the end of a class are those of the item itself, which is left out.
        columns = (tile.first[:, None] + offset).where(offset < tile.size[:, None], rows)
        inside = scores[: len(tile.items)]
        relevant = -np.sort(-inside.gather(1, columns).numpy(), axis=1)[:, : max(most - 1, 1)]
        inside.scatter_(1, columns, -torch.inf)
        depth = max(self._depth, most - 1)
        ranks = RunningRanks(torch.from_numpy(relevant), tile.size - 1, depth, len(self._tiles), len(scores))
        ranks.look(Square(scores, self._own.scratch))
        self._ranks[at] = ranks

    def _meet(self, pair: tuple[int, int]) -> None:
        first, second = pair
        square = Square(self._scores(first, second), self._own.scratch)
        self._ranks[first].look(square)
        if second in self._group:
            self._ranks[second].look(square, by_columns=True)

    def _finish(self, at: int) -> None:
        hits, first, sure = self._ranks.pop(at).finish()
        tile = self._tiles[at]
        n_relevant = tile.size - 1
        keep, missing = sure & (n_relevant > 0), ~sure & (n_relevant > 0)
        self._found[at] = Ranked(tile.items[keep], hits[keep], n_relevant[keep], first[keep]), tile.items[missing]

    def _scores(self, first: int, second: int) -> Tensor:
        # Each thread has its own: fresh memory costs about as much as the product itself.
        left, right = self._rows[first], self._rows[second]
        if not hasattr(self._own, "scores"):
            self._own.scores, self._own.scratch = left.new_empty(len(left), len(left)), left.new_empty(ROWS, len(left))
        scores: Tensor = self._own.scores
        self._similarities.between(left, right, scores)
        scores[len(self._tiles[first].items) :] = -torch.inf
        scores[:, len(self._tiles[second].items) :] = -torch.inf
        return scores


def _groups(tiles: Sequence[ClassTile], depth: int, room: int) -> Iterator[range]:
    """Tiles that are ranked together: one at least, else as many as keep no more numbers than there is room for."""
    start, taken = 0, 0
    for at, tile in enumerate(tiles):
        most = int(tile.size.max())
        needed = len(tile.items) * (most + kept_others(max(depth, most)))
        if taken and taken + needed > room:
            yield range(start, at)
            start, taken = at, 0
        taken += needed
    yield range(start, len(tiles))


def _n_squares(groups: Sequence[range], n_tiles: int) -> int:
    return sum(len(group) * (len(group) + 1) // 2 + len(group) * (n_tiles - len(group)) for group in groups)


def _disjoint_pairs(items: Sequence[int]) -> Iterator[tuple[int, int]]:
    """All pairs, in rounds in which each item occurs once, so that threads seldom wait for each other.

    Example:
        >>> list(_disjoint_pairs(range(3)))
        [(1, 2), (0, 2), (0, 1)]
    """
    ring: list[int | None] = [*items, *([None] if len(items) % 2 else [])]
    for _ in range(len(ring) - 1):
        for first, second in zip(ring[: len(ring) // 2], reversed(ring), strict=False):
            if first is not None and second is not None:
                yield min(first, second), max(first, second)
        ring = [ring[0], ring[-1], *ring[1:-1]]
