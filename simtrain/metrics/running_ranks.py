"""At which ranks the relevant items of some queries stand, found while the scores of the others go by."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from simtrain.metrics.comparison import counts
from simtrain.metrics.hot_scores import hot_scores
from simtrain.metrics.square import Square

Array = NDArray[Any]

# Standard deviations by which more others are kept than are expected among the best.
SLACK = 3.0
# Bounds are looked at anew when so many times the squares have been seen.
GROWTH = 1.4
EVERY = slice(None)


class RunningRanks:
    """Ranks of relevant items among all others, where the relevant items' scores are known from the beginning.

    Only the others matter that score at least as high as some relevant item, and are among the ``depth`` best. Whatever
    reaches a bound is kept; the bound rises with what has been seen. It starts from a guess, which what has been seen
    first gives of the whole: a query whose guess was too high is told at the end, to be searched in another way. Where
    not even the best relevant item reaches the bound, the others above it are counted.

    Args:
        relevant: Scores of each query's relevant items, highest first, filled up with minus infinity, shape
            ``(rows, most)``, on the CPU.
        n_relevant: How many there are, shape ``(rows,)``. Queries without any are not ranked.
        depth: Ranks to look at, at least ``most``.
        n_squares: How many squares of others there are.
        side: Of such a square.
    """

    def __init__(
        self,
        relevant: Float[Tensor, "rows most"],
        n_relevant: Int64[Tensor, " rows"],
        depth: int,
        n_squares: int,
        side: int,
    ) -> None:
        self._relevant, self._n_relevant, self._depth, self._n_squares = relevant, n_relevant, depth, n_squares
        rows, dtype = len(relevant), relevant.numpy().dtype
        self._best = relevant[:, 0].numpy()
        self._worst = relevant.gather(1, (n_relevant - 1).clamp(min=0)[:, None])[:, 0].numpy()
        self._none = (n_relevant == 0).numpy()
        self._capacity = kept_others(depth)
        self._kept = np.full((rows, self._capacity), -np.inf, dtype)
        self._filled = 0
        self._guess = np.full(rows, -np.inf, dtype)
        self._bound = np.full((side, 1), np.inf, dtype)
        self._counting = np.zeros(rows, dtype=bool)
        self._above, self._equal = (torch.zeros(rows, dtype=torch.int64) for _ in range(2))
        self._seen = self._settled = 0
        self._lock = threading.Lock()

    def look(self, square: Square, by_columns: bool = False) -> None:
        """Take in a square of others' scores, the queries in its first rows, or in its first columns."""
        with self._lock:
            if not self._seen:
                maxima = square.maxima(by_columns)[: len(self._kept)]
                self._raise(self._first_guess(maxima), self._kept[:, :0])
            self._seen += 1
            self._count(square, by_columns)
            # Of well-trained embeddings, no score of most squares reaches any bound.
            if square.peak < self._bound.min():
                return
            self._keep(*hot_scores(square.scores, square.maxima(by_columns), self._bound, by_columns))
            if self._filled and self._seen >= GROWTH * self._settled:
                self._settle(self._kept[:, : self._filled])

    def finish(self) -> tuple[Bool[Tensor, "rows depth"], Int64[Tensor, " rows"], Bool[Tensor, " rows"]]:
        """Tell the ranks once all squares have been seen.

        Returns:
            Whether a relevant item stands at each rank; the rank of the first one, from 1; and whether both are known
            for sure, which they are not where an item ties with a relevant one or a guess was too high.
        """
        kept = np.sort(self._kept[:, : self._filled], axis=1)
        others, relevant, counting = torch.from_numpy(kept), self._relevant, torch.from_numpy(self._counting)
        order = torch.arange(relevant.shape[1])
        listed = order < self._n_relevant[:, None]
        higher = others.shape[1] - torch.searchsorted(others, relevant, right=True)
        tied = (torch.searchsorted(others, relevant) + higher != others.shape[1]) & listed
        ranks = order + higher
        shown = listed & (ranks < self._depth) & ~counting[:, None]
        hits = torch.zeros(len(relevant), self._depth + 1, dtype=torch.bool)
        hits.scatter_(1, ranks.where(shown, self._depth), True)
        first = torch.where(counting, self._above, ranks[:, 0]) + 1
        high = self._guess > self._worst
        high[high] = self._guess[high] > self._reached(kept[high], high)
        unsure = torch.where(
            counting, (self._equal > 0) | (first <= self._depth), tied.any(dim=1) | torch.from_numpy(high)
        )
        return hits[:, :-1], first, ~unsure

    def _first_guess(self, maxima: Array) -> Array:
        # Where no score reaches even the worst relevant item, as of well-trained embeddings, nothing need be guessed.
        lowest, some = np.full(len(maxima), -np.inf, maxima.dtype), maxima.max(axis=1) >= self._worst
        ascending = np.sort(maxima[some], axis=1)
        # Maxima stand for their scores: as many scores reach them at least.
        lowest[some] = np.maximum(self._reached(ascending, some), self._guessed(ascending, 1))
        return lowest

    def _guessed(self, ascending: Array, seen: int) -> Array:
        """A score that about ``depth`` others of all squares are going to reach, rather more than fewer."""
        expected = self._depth * seen / self._n_squares
        place = max(1, math.ceil(expected + SLACK * math.sqrt(expected) + SLACK))
        enough = place < self._depth and place <= ascending.shape[1]
        return ascending[:, -place] if enough else np.full(len(ascending), -np.inf, ascending.dtype)

    def _reached(self, ascending: Array, some: Array | slice = EVERY) -> Array:
        """A score that ``depth`` of the relevant items and of these others reach, of the rows ``some``.

        It is the best that a number of relevant items and as many others as are missing reach together.
        """
        relevant, depth, surplus = self._relevant.numpy()[some], self._depth, ascending.shape[1] - self._depth
        reached = ascending[:, surplus] if surplus >= 0 else np.full(len(ascending), -np.inf, ascending.dtype)
        if relevant.shape[1] == depth:
            reached = np.maximum(reached, relevant[:, -1])
        fewest, most = max(1, -surplus), min(relevant.shape[1], depth - 1)
        if fewest <= most:
            both = np.minimum(ascending[:, surplus + fewest : surplus + most + 1], relevant[:, fewest - 1 : most])
            reached = np.maximum(reached, both.max(axis=1))
        return reached

    def _raise(self, lowest: Array, kept: Array) -> None:
        """Nothing below ``lowest`` is wanted any more; ``kept`` is all that was."""
        new = (self._best < lowest) & ~self._counting & ~self._none
        others, best = torch.from_numpy(kept[new]), torch.from_numpy(self._best[new, None])
        self._above[new], self._equal[new] = (others > best).sum(dim=1), torch.eq(others, best).sum(dim=1)
        self._counting |= new
        np.maximum(self._guess, lowest, out=self._guess)
        wanted = np.maximum(self._guess, self._worst)
        self._bound[: len(wanted), 0] = np.where(self._counting | self._none, np.inf, wanted)

    def _settle(self, kept: Array) -> None:
        """Raise the bounds by what is kept, and go on with as much of it as is still wanted."""
        ascending, depth = np.sort(kept, axis=1), self._depth
        lowest = np.maximum(self._reached(ascending), self._guessed(ascending, self._seen))
        self._raise(lowest, ascending)
        wanted = int((ascending >= self._bound[: len(ascending)]).sum(axis=1).max())
        self._filled = min(wanted, depth)
        self._kept[:, self._filled :] = -np.inf
        self._kept[:, : self._filled] = ascending[:, ascending.shape[1] - self._filled :]
        self._kept[self._counting] = -np.inf
        self._settled = self._seen

    def _keep(self, rows: Array, scores: Array) -> None:
        if not len(rows):
            return
        counts = np.bincount(rows, minlength=len(self._kept))
        place = self._filled + np.arange(len(rows)) - (counts.cumsum() - counts)[rows]
        filled = self._filled + int(counts.max())
        if filled <= self._capacity:
            self._kept[rows, place] = scores
            self._filled = filled
            return
        wide = np.full((len(self._kept), filled), -np.inf, self._kept.dtype)
        wide[:, : self._filled] = self._kept[:, : self._filled]
        wide[rows, place] = scores
        self._settle(wide)

    def _count(self, square: Square, by_columns: bool) -> None:
        counted = torch.from_numpy(self._counting.nonzero()[0])
        if not len(counted):
            return
        scores, scratch = square.scores, square.scratch
        axis, rows = (0, 1) if by_columns else (1, 0)
        best = torch.from_numpy(self._best)[counted, None]
        if 2 * len(counted) > len(self._counting):
            # Most are asked for: all are counted, since these would have to be copied to stand together.
            bound = torch.full((len(scores), 1), torch.inf, dtype=scores.dtype)
            bound[counted] = best
            above, equal = counts(scores, bound, axis, scratch)
            self._above += above[: len(self._above)]
            self._equal += equal[: len(self._equal)]
        else:
            above, equal = counts(scores.index_select(rows, counted), best, axis, scratch)
            self._above[counted] += above
            self._equal[counted] += equal


def kept_others(depth: int) -> int:
    """How many others are kept of each query, at most."""
    return depth + depth // 2 + 32
