"""Retrieval metrics of training and validation batches as torchmetrics ``Metric``s.

Each item of a batch is searched among the other items of that batch, so the values depend on the batch size: they
follow a training, while :func:`simtrain.metrics.retrieval_report` measures against a whole gallery.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from simtrain.errors import ConfigError, DataError
from simtrain.metrics.averages import Average, checked_average
from simtrain.metrics.batch import rank_batch
from simtrain.metrics.batch_metric import BatchMetric
from simtrain.metrics.formulas import (
    Denominator,
    average_precision,
    checked_denominator,
    hit_rate,
    precision,
    r_precision,
    recall,
    reciprocal_rank,
)
from simtrain.metrics.query_measures import measured_ndcg
from simtrain.metrics.ranking import Ranked
from simtrain.metrics.similarities import Distance
from simtrain.metrics.unmatched import Empty, checked_empty
from simtrain.registry import metrics

# Scores are added as integer multiples of one in so many: integers add up to the same sum in any order, so the
# value does not depend on how queries were spread over batches of processes. 2^31 queries fit, or 2^43 pairs.
UNITS = {"macro": 2**32, "micro": 2**20}


class RetrievalMetric(BatchMetric):
    """Mean of a per-query score over all queries seen; the base of this module's metrics.

    The states are integers, a sum of scores and some counts: constant memory, and exact under distributed training.
    Before any query was seen the value is 0.0. All metrics here take ``empty`` and ``average``.

    Args:
        distance: ``"cosine"``, ``"dot"`` or ``"euclidean"``.
        empty: Items without a relevant one in their batch are left out (``"skip"``), count as 0 (``"zero"``), or are an
            error (``"error"``). ``n_without_match`` counts them.
        average: ``"macro"``: every query counts alike. ``"micro"``: every relevant item does, so a query weighs as much
            as it has relevant items in its batch.
        **kwargs: Passed on to ``torchmetrics.Metric``.

    Raises:
        ConfigError: An option is not accepted.
    """

    higher_is_better = True
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    graded: bool = False
    depth: int = 1
    to_r: bool = False
    first: bool = False
    total: Tensor
    n_queries: Tensor
    n_relevant: Tensor
    n_without_match: Tensor

    def __init__(
        self, distance: Distance = "cosine", *, empty: Empty = "skip", average: Average = "macro", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.distance, self.empty, self.average = distance, checked_empty(empty), checked_average(average)
        self.unit = UNITS[average]
        for name in ("total", "n_queries", "n_relevant", "n_without_match"):
            self.add_state(name, default=torch.tensor(0), dist_reduce_fx="sum")

    def update(
        self,
        embeddings: Tensor,
        groups: Tensor | None = None,
        pairs: Tensor | None = None,
        labels: Tensor | None = None,
        subgroups: Tensor | None = None,
    ) -> None:
        """Add a batch; see :meth:`~simtrain.metrics.batch_metric.BatchMetric.update`."""
        depth, to_r, first, graded = self.depth, self.to_r, self.first, self.graded
        search = partial(rank_batch, distance=self.distance, depth=depth, to_r=to_r, first=first, graded=graded)
        blocks = search(embeddings, groups, pairs, labels, subgroups)
        n_items = len(embeddings) if pairs is None else len(torch.unique(pairs))
        n_without = n_items - sum(len(ranked.queries) for ranked in blocks)
        if self.empty == "error" and n_without:
            raise DataError(f"{n_without} items of a batch of {len(embeddings)} have no relevant one in it")
        self.n_without_match += n_without
        for ranked in blocks:
            weights = ranked.n_relevant if self.average == "micro" else torch.ones_like(ranked.n_relevant)
            self.total += (self.score(ranked) * weights * self.unit).round().long().sum().to(self.total.device)
            self.n_queries += len(ranked.queries)
            self.n_relevant += ranked.n_relevant.sum().to(self.n_relevant.device)

    def compute(self) -> Float[Tensor, ""]:
        """Mean score over all queries seen, float32; 0.0 where there was none."""
        weight = self.n_relevant if self.average == "micro" else self.n_queries
        if self.empty == "zero" and self.average == "macro":
            weight = weight + self.n_without_match
        return (self.total.cpu().double() / self.unit / weight.cpu().clamp(min=1)).float().to(self.total.device)

    def score(self, ranked: Ranked) -> Float[Tensor, " queries"]:
        """Scores of ranked queries, float64, between 0 and 1."""
        raise NotImplementedError(f"{type(self).__name__} must implement `score`")


class _RetrievalAtK(RetrievalMetric):
    def __init__(self, k: int = 1, distance: Distance = "cosine", **kwargs: Any) -> None:
        super().__init__(distance, **kwargs)
        self.k = self.depth = checked_k(k)


def checked_k(k: Any, name: str = "k") -> int:
    """Return ``k`` if it is a positive integer.

    Raises:
        ConfigError: It is not.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ConfigError(f"{name} is a positive integer, got {k!r}")
    return k


@metrics.register_module()
class RetrievalPrecision(_RetrievalAtK):
    """Share of relevant items among the first ``k``: found / k, also where the batch is smaller.

    Args:
        k: Cut-off, default 1.
        distance: ``"cosine"``, ``"dot"`` or ``"euclidean"``.
        **kwargs: Passed on to ``torchmetrics.Metric``.

    Raises:
        ConfigError: ``k`` is not a positive integer.

    Example:
        >>> metric = RetrievalPrecision(k=1)
        >>> metric.update(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), groups=torch.tensor([5, 5, 6]))
        >>> metric.compute()
        tensor(1.)
    """

    def score(self, ranked: Ranked) -> Float[Tensor, " queries"]:
        """See :func:`simtrain.metrics.formulas.precision`."""
        return precision(ranked.hits, self.k)


@metrics.register_module()
class RetrievalRecall(_RetrievalAtK):
    """Share of the relevant items that is found among the first ``k``; arguments as :class:`RetrievalPrecision`."""

    def score(self, ranked: Ranked) -> Float[Tensor, " queries"]:
        """See :func:`simtrain.metrics.formulas.recall`."""
        return recall(ranked.hits, ranked.n_relevant, self.k)


@metrics.register_module()
class RetrievalHitRate(_RetrievalAtK):
    """Share of queries with a relevant item among the first ``k``; arguments as :class:`RetrievalPrecision`."""

    def score(self, ranked: Ranked) -> Float[Tensor, " queries"]:
        """See :func:`simtrain.metrics.formulas.hit_rate`."""
        return hit_rate(ranked.hits, self.k)


@metrics.register_module()
class RetrievalNDCG(_RetrievalAtK):
    """Normalized discounted gain of the first ``k``.

    Args:
        k: Cut-off, default 1.
        distance: ``"cosine"``, ``"dot"`` or ``"euclidean"``.
        graded: Take the labels of pairs as gains; of items in one subgroup, the lower label of their pairs. Else, and
            in group batches, gains are 0 and 1.
        **kwargs: Passed on to ``torchmetrics.Metric``.

    Raises:
        ConfigError: ``k`` is not a positive integer.
    """

    def __init__(self, k: int = 1, distance: Distance = "cosine", graded: bool = False, **kwargs: Any) -> None:
        super().__init__(k, distance, **kwargs)
        self.graded = bool(graded)

    def score(self, ranked: Ranked) -> Float[Tensor, " queries"]:
        """See :func:`simtrain.metrics.formulas.ndcg` and :func:`simtrain.metrics.formulas.graded_ndcg`."""
        return measured_ndcg(ranked, self.k)


@metrics.register_module()
class RetrievalReciprocalRank(RetrievalMetric):
    """Mean over queries of one divided by the rank of the first relevant item (MRR), at any depth.

    Args:
        distance: ``"cosine"``, ``"dot"`` or ``"euclidean"``.
        **kwargs: Passed on to ``torchmetrics.Metric``.

    Example:
        >>> metric = RetrievalReciprocalRank()
        >>> points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [0.1, 0.9]])
        >>> metric.update(points, pairs=torch.tensor([[0, 2], [1, 3]]), labels=torch.ones(2))
        >>> metric.compute()
        tensor(1.)
    """

    first = True

    def score(self, ranked: Ranked) -> Float[Tensor, " queries"]:
        """See :func:`simtrain.metrics.formulas.reciprocal_rank`."""
        return reciprocal_rank(ranked.first_rank)


@metrics.register_module()
class RetrievalRPrecision(RetrievalMetric):
    """Mean over queries of found among the first R / R, where R is the query's number of relevant items.

    Arguments as :class:`RetrievalReciprocalRank`.
    """

    to_r = True

    def score(self, ranked: Ranked) -> Float[Tensor, " queries"]:
        """See :func:`simtrain.metrics.formulas.r_precision`."""
        return r_precision(ranked.hits, ranked.n_relevant)


@metrics.register_module()
class RetrievalMAP(RetrievalMetric):
    """Mean average precision at ``k``, divided by ``min(k, R)``; with ``k="r"`` MAP@R, divided by R.

    Args:
        k: Cut-off, or ``"r"`` (default) for each query's number of relevant items R.
        distance: ``"cosine"``, ``"dot"`` or ``"euclidean"``.
        denominator: ``"min_k_relevant"``, ``"relevant"`` or ``"hits"``; see
            :func:`~simtrain.metrics.formulas.average_precision`.
        **kwargs: Passed on to ``torchmetrics.Metric``.

    Raises:
        ConfigError: ``k`` is neither a positive integer nor ``"r"``, or the denominator is not known.

    Example:
        >>> metric = RetrievalMAP("r")
        >>> metric.update(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), groups=torch.tensor([5, 5, 6]))
        >>> metric.compute()
        tensor(1.)
    """

    def __init__(
        self,
        k: int | Literal["r"] = "r",
        distance: Distance = "cosine",
        denominator: Denominator = "min_k_relevant",
        **kwargs: Any,
    ) -> None:
        super().__init__(distance, **kwargs)
        self.denominator = checked_denominator(denominator)
        if isinstance(k, str) and k != "r":
            raise ConfigError(f"k is a positive integer or 'r' (each query's number of relevant items), got {k!r}")
        self.k: int | Literal["r"] = "r" if k == "r" else checked_k(k)
        self.depth, self.to_r = (1, True) if self.k == "r" else (self.k, False)

    def score(self, ranked: Ranked) -> Float[Tensor, " queries"]:
        """See :func:`simtrain.metrics.formulas.average_precision`."""
        return average_precision(ranked.hits, ranked.n_relevant, self.k, self.denominator)
