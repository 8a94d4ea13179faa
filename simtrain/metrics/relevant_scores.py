"""The scores of relevant items in a scan: the best one, where it stands, and which pairs are excluded."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from simtrain.metrics.comparison import count_above, count_equal
from simtrain.metrics.relevance import Relevance
from simtrain.metrics.scan import Scan

ROWS = 32


class RelevantScores:
    """What is seen of the relevant items while the blocks of a scan go by.

    Args:
        scan: The scan.
        relevance: What is relevant to its queries.
        lists: Keep which listed items are excluded, not only how many.

    Attributes:
        best: Highest score of a relevant item, by query; minus infinity where none was seen.
        place: Its gallery index, the lowest of equal ones.
        n_excluded: Relevant items that are excluded.
        excluded: Whether each item of ``relevance.columns`` is excluded, where ``lists`` asks for it.
    """

    def __init__(self, scan: Scan, relevance: Relevance, *, lists: bool = False) -> None:
        self._scan, self._relevance = scan, relevance
        queries = scan.queries
        self.best = torch.full((len(queries), 1), -torch.inf, device=queries.device, dtype=torch.float64)
        self.place = torch.full_like(queries, scan.n_gallery)[:, None]
        self.n_excluded = torch.zeros_like(queries)
        self.excluded: Bool[Tensor, "rows most"] | None = None
        if lists:
            self.excluded = torch.zeros_like(relevance.columns(queries), dtype=torch.bool)

    def watch(self, start: int, scores: Float[Tensor, "all columns"]) -> None:
        """Look at a block of scores, all rows of it."""
        self.look(start, scores, torch.arange(len(scores), device=scores.device))

    def look(self, start: int, scores: Float[Tensor, "all columns"], rows: Int64[Tensor, " some"]) -> None:
        """Look at some rows of a block of scores."""
        for some in torch.split(rows, ROWS):
            values, items = self._values(start, scores, some)
            excluded = values.isneginf()
            self.n_excluded[some] += excluded.sum(dim=1)
            if self.excluded is not None:
                self.excluded[some, : items.shape[1]] |= excluded
            self._update_best(some, values, items)

    def ranks(self, rows: Int64[Tensor, " some"]) -> Int64[Tensor, " some"]:
        """Rank of the best relevant item: one, and the items that score higher or tie at a lower index."""
        ranks = torch.ones_like(self._scan.queries)
        # Where most rows are asked for, all are counted: they need not be copied to stand together.
        whole = 2 * len(rows) > len(ranks)
        counted = torch.arange(len(ranks), device=rows.device) if whole else rows
        best = self.best.where(self.best > -torch.inf, torch.inf)
        for start, scores in self._scan:
            for some in torch.split(counted, ROWS):
                block = scores[int(some[0]) : int(some[0]) + len(some)] if whole else scores[some]
                ranks[some] += _before(block, best[some].to(scores.dtype), self.place[some] - start)
        return ranks[rows]

    def _values(
        self, start: int, scores: Tensor, rows: Tensor
    ) -> tuple[Float[Tensor, "some most"], Int64[Tensor, "some most"]]:
        """Scores of the relevant items in this block and their gallery indices; NaN where the list is padded."""
        items = self._relevance.columns(self._scan.queries[rows])
        inside = (items >= start) & (items < start + scores.shape[1])
        return scores[rows[:, None], (items - start) * inside].where(inside, torch.nan), items

    def _update_best(self, rows: Tensor, values: Tensor, items: Tensor) -> None:
        if not items.shape[1]:
            return
        value = values.where(~values.isnan(), -torch.inf).amax(dim=1, keepdim=True)
        first = items.where(values == value, torch.iinfo(items.dtype).max).amin(dim=1, keepdim=True)
        better = value > self.best[rows]
        self.best[rows] = value.to(self.best.dtype).where(better, self.best[rows])
        self.place[rows] = first.where(better, self.place[rows])


def _before(scores: Tensor, best: Tensor, column: Tensor) -> Int64[Tensor, " rows"]:
    before, tied = count_above(scores, best), count_equal(scores, best)
    # A tie is rare; where there is one, only lower indices come first.
    holds = (column[:, 0] >= 0) & (column[:, 0] < scores.shape[1])
    rows = ((tied > 1) | ((tied == 1) & ~holds)).nonzero()[:, 0]
    if len(rows):
        lower = torch.arange(scores.shape[1], device=scores.device) < column[rows]
        before[rows] += ((scores[rows] == best[rows]) & lower).sum(dim=1)
    return before
