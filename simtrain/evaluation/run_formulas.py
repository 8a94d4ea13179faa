"""The metrics of runs: from the ranks of judged documents to one number a query, as trec_eval defines them.

All return float64 of shape ``(queries,)``; a query without a relevant document has 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simtrain.evaluation.judged_ranks import JudgedRanks

Values = NDArray[np.float64]


class RunFormulas:
    """Metrics of one run.

    Args:
        ranks: Where the judged documents stand.
        relevant_from: Grade from which a document is relevant; ``ndcg`` does not look at it.

    Reference:
        Buckley, Voorhees: Retrieval Evaluation with Incomplete Information, 2004 (bpref); Järvelin, Kekäläinen:
        Cumulated Gain-Based Evaluation of IR Techniques, 2002, with the grade as gain and the discount
        ``log2(rank + 1)`` (ndcg).
    """

    def __init__(self, ranks: JudgedRanks, relevant_from: int = 1) -> None:
        self.ranks = ranks
        self.relevant_from = relevant_from
        self.n_relevant = ranks.judged_count(relevant_from)
        hits = ranks.grade >= relevant_from
        #: Query and rank of each relevant document that was found.
        self.owner, self.rank = ranks.owner[hits], ranks.rank[hits]
        #: How many relevant documents stand at this rank or above.
        self.found = _count_within(self.owner)

    def precision(self, k: int) -> Values:
        """Relevant documents among the first ``k``, divided by ``k``."""
        return self._hits(k) / k

    def recall(self, k: int) -> Values:
        """Relevant documents among the first ``k``, divided by the number of relevant documents."""
        return _share(self._hits(k), self.n_relevant)

    def hit_rate(self, k: int) -> Values:
        """1 where a relevant document is among the first ``k``, else 0: trec_eval's success."""
        return (self._hits(k) > 0).astype(np.float64)

    def mrr(self, k: int | None = None) -> Values:
        """One divided by the rank of the first relevant document; 0 where that is beyond ``k``."""
        values = np.zeros(self.ranks.n_queries)
        first = self.found == 1 if k is None else (self.found == 1) & (self.rank <= k)
        values[self.owner[first]] = 1.0 / self.rank[first]
        return values

    def r_precision(self) -> Values:
        """Relevant documents among the first R, divided by R, the query's number of relevant documents."""
        return _share(self._sum(self.owner, (self.rank <= self.n_relevant[self.owner]).astype(float)), self.n_relevant)

    def map(self, k: int | None = None) -> Values:
        """Sum of the precision at each relevant document among the first ``k``, divided by R (never by ``k``)."""
        terms = self.found / self.rank * (True if k is None else self.rank <= k)
        return _share(self._sum(self.owner, terms), self.n_relevant)

    def ndcg(self, k: int | None = None) -> Values:
        """Discounted gain of the first ``k``, divided by that of the best order of all judged documents."""
        ranks = self.ranks
        ideal_rank = _count_within(ranks.judged_owner)
        gained = self._sum(ranks.owner, _discounted(ranks.grade, ranks.rank, k))
        return _share(gained, self._sum(ranks.judged_owner, _discounted(ranks.judged_grade, ideal_rank, k)))

    def bpref(self) -> Values:
        """How seldom documents judged not relevant stand above relevant ones; what was not judged is passed over."""
        missed = self.ranks.grade < self.relevant_from
        above = _running_count(self.ranks.owner, missed)[~missed]
        n_missed = self.ranks.judged_count(0, self.relevant_from)
        most = np.minimum(self.n_relevant, n_missed)[self.owner]
        terms = 1.0 - np.minimum(above, self.n_relevant[self.owner]) / np.maximum(most, 1)
        return _share(self._sum(self.owner, terms), self.n_relevant)

    def _hits(self, k: int) -> Values:
        return np.bincount(self.owner[self.rank <= k], minlength=self.ranks.n_queries).astype(np.float64)

    def _sum(self, owner: NDArray[np.int64], terms: Values) -> Values:
        return np.bincount(owner, weights=terms, minlength=self.ranks.n_queries).astype(np.float64)


def _discounted(grade: NDArray[np.int64], rank: NDArray[np.int64], k: int | None) -> Values:
    gains: Values = grade / np.log2(rank + 1.0)
    return gains if k is None else gains * (rank <= k)


def _share(part: Values, whole: NDArray[np.int64] | Values) -> Values:
    share: Values = np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
    return share


def _count_within(owner: NDArray[np.int64]) -> NDArray[np.int64]:
    """1, 2, 3, ... within each run of equal owners."""
    return _running_count(owner, np.ones(len(owner), dtype=bool))


def _running_count(owner: NDArray[np.int64], flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many flags are set up to and with each entry, within its owner."""
    counts = np.concatenate([[0], np.cumsum(flags, dtype=np.int64)])
    running: NDArray[np.int64] = counts[1:] - counts[np.searchsorted(owner, owner)]
    return running
