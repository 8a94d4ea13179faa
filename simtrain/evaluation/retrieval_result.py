"""Figures of one model on one test set."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simtrain.errors import ConfigError, DataError, nearest
from simtrain.evaluation.pair_scores import PairScores
from simtrain.evaluation.significance import PairedTest, bootstrap_interval, paired_test
from simtrain.evaluation.text_files import draft
from simtrain.metrics import grouped_report
from simtrain.metrics.labels import Labels


@dataclass(frozen=True)
class RetrievalResult:
    """Figures of one model on one test set.

    Attributes:
        scores: Metric name → its value for each query, shape ``(n_queries,)``.
        n_gallery: Number of items that were searched.
        confidence: Level of the intervals.
        seed: Seed of the resampling.
        n_resamples: Resamples of an interval and of a test; a p-value is at least one in so many.
        pair_scores: Similarities and scores of the pairs, where they are graded.
        n_without_match: Queries of the test set that have nothing to find; they are not among the scores, unless they
            were asked to count as 0.
        query_rows: Row of each measured query in the test set, shape ``(n_queries,)``; None if that is not known.
    """

    scores: dict[str, Tensor] = field(repr=False)
    n_gallery: int
    confidence: float = 0.95
    seed: int = 0
    n_resamples: int = 2_000
    query_rows: Tensor | None = field(default=None, repr=False)
    pair_scores: PairScores | None = field(default=None, repr=False)
    n_without_match: int = 0

    @property
    def n_queries(self) -> int:
        """Number of queries that the scores are of."""
        return len(next(iter(self.scores.values())))

    @property
    def metrics(self) -> dict[str, float]:
        """Metric name → mean over the queries; of graded pairs also ``spearman`` and ``pearson``."""
        means = {name: float(values.mean()) if len(values) else 0.0 for name, values in self.scores.items()}
        return means if self.pair_scores is None else {**means, **self.pair_scores.metrics}

    def interval(self, name: str) -> tuple[float, float]:
        """Bootstrap interval of a metric's mean over the queries; of a correlation, over the pairs."""
        if self.pair_scores is not None and name in self.pair_scores.metrics:
            return self.pair_scores.interval(name, self.confidence, self.n_resamples, self.seed)
        return bootstrap_interval(self.scores[name], self.confidence, self.n_resamples, self.seed)

    def compare(self, other: RetrievalResult, name: str) -> PairedTest:
        """Test whether ``other`` differs from this result in a metric, query by query.

        Args:
            other: Result of another model over the same queries.
            name: The metric.

        Returns:
            Its ``difference`` is above zero where ``other`` is better.

        Raises:
            ConfigError: The metric is not one of each query.
            DataError: The two results are not over the same queries.
        """
        if name not in self.scores or name not in other.scores:
            raise ConfigError(f"{name!r} is no metric of single queries in both results; {nearest(name, self.scores)}")
        if self.n_queries != other.n_queries:
            raise DataError(
                f"a paired comparison needs the same queries on both sides, got {self.n_queries} and {other.n_queries}"
            )
        rows, others = self.query_rows, other.query_rows
        if rows is not None and others is not None and not rows.cpu().equal(others.cpu()):
            apart = int((rows.cpu() != others.cpu()).nonzero()[0])
            raise DataError(
                "a paired comparison needs the same queries on both sides: their numbers differ, first "
                f"{int(rows[apart])} and {int(others[apart])}"
            )
        return paired_test(
            other.scores[name], self.scores[name], self.n_resamples, self.seed, confidence=self.confidence
        )

    def by_group(self, groups: Labels) -> dict[Hashable, dict[str, float]]:
        """Means by group of the queries: by class, camera, language.

        Args:
            groups: Group of each query of the test set, in its order, also of those without a match.

        Returns:
            Group → metric name → mean; see :func:`simtrain.metrics.grouped_report`.

        Raises:
            DataError: There are not enough groups, or they are floating point.
        """
        rows = torch.arange(self.n_queries) if self.query_rows is None else self.query_rows
        return grouped_report({"query": rows, **self.scores}, groups)

    def as_dict(self, names: Sequence[str] = ()) -> dict[str, Any]:
        """Figures and intervals as JSON values; all metrics, or those that are named."""
        chosen = {name: mean for name, mean in self.metrics.items() if not names or name in names}
        intervals = {name: list(self.interval(name)) for name in chosen}
        counts = {
            "n_queries": self.n_queries,
            "n_queries_without_match": self.n_without_match,
            "n_gallery": self.n_gallery,
        }
        return {"metrics": chosen, "intervals": intervals, "confidence": self.confidence, **counts}

    def save(self, path: str | Path) -> None:
        """Write :meth:`as_dict` to a JSON file, all or nothing."""
        with draft(Path(path)) as file:
            json.dump(self.as_dict(), file, indent=2)
            file.write("\n")
