"""Two systems on the same queries: how much they differ, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simtrain.errors import DataError, nearest
from simtrain.evaluation.query_scores import QueryScores
from simtrain.evaluation.significance import PairedTest, paired_test
from simtrain.evaluation.table import markdown_table


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare_scores` found.

    Attributes:
        names: What the two systems are called.
        n_queries: Number of queries.
        confidence: Level of the intervals.
        means: Metric name → both means.
        tests: Metric name → difference, second minus first, its interval and p-value.
    """

    names: tuple[str, str]
    n_queries: int
    confidence: float
    means: dict[str, tuple[float, float]]
    tests: dict[str, PairedTest]

    def is_worse(self, metric: str) -> bool:
        """Whether the second system is worse in a metric, and not by chance at this level of confidence."""
        test = self.tests[metric]
        return test.difference < 0 and test.p_value < 1 - self.confidence

    def table(self) -> str:
        """Markdown table with a line for each metric."""
        rows = [
            [
                name,
                *(f"{mean:.4f}" for mean in self.means[name]),
                f"{test.difference:+.4f}",
                f"[{test.low:+.4f}, {test.high:+.4f}]",
                f"{test.p_value:.4f}",
            ]
            for name, test in self.tests.items()
        ]
        return markdown_table(["metric", *self.names, "difference", f"{self.confidence:.0%} interval", "p"], rows)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        metrics = {
            name: {"a": self.means[name][0], "b": self.means[name][1], **vars(test)}
            for name, test in self.tests.items()
        }
        return {
            "a": self.names[0],
            "b": self.names[1],
            "n_queries": self.n_queries,
            "confidence": self.confidence,
            "metrics": metrics,
        }


def compare_scores(
    a: QueryScores,
    b: QueryScores,
    metrics: Sequence[str] = (),
    names: tuple[str, str] = ("A", "B"),
    *,
    confidence: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare two systems query by query: bootstrap interval of the difference and paired permutation test.

    The p-values are those of one metric each; looking at many and reporting the best needs a correction.

    Args:
        a: Scores of the first system.
        b: Scores of the second, for the same queries in any order.
        metrics: Which to compare. Default: all that both have.
        names: What to call the systems.
        confidence: Level of the intervals.
        n_resamples: Random flips of the test, and resamples of the interval.
        seed: Seed of the draws.

    Returns:
        The differences, ``b - a``: above zero where the second system is better.

    Raises:
        DataError: The queries are not the same, or a metric is not there on both sides.
        ConfigError: ``confidence`` or ``n_resamples`` is out of range.

    Example:
        >>> first = QueryScores(["q1", "q2", "q3"], {"mrr": [0.5, 0.25, 0.125]})
        >>> second = QueryScores(["q3", "q2", "q1"], {"mrr": [0.625, 0.75, 1.0]})
        >>> compare_scores(first, second).tests["mrr"]
        PairedTest(difference=0.5, low=0.5, high=0.5, p_value=0.25)
    """
    _check_queries(a, b, names)
    chosen = _metrics(a, b, metrics, names)
    other = b.rows(a.query_ids)
    tests = {
        name: paired_test(other.scores[name], a.scores[name], n_resamples, seed, confidence=confidence)
        for name in chosen
    }
    means = {name: (float(a.scores[name].mean()), float(other.scores[name].mean())) for name in chosen}
    return Comparison(names, len(a), confidence, means, tests)


def _check_queries(a: QueryScores, b: QueryScores, names: tuple[str, str]) -> None:
    for here, there, lacking in ((a, b, names[1]), (b, a, names[0])):
        alone = set(here.query_ids) - set(there.query_ids)
        if alone:
            first = next(query for query in here.query_ids if query in alone)
            raise DataError(
                f"a paired comparison needs the same queries on both sides: {lacking} lacks {len(alone)} of "
                f"{len(here)}, such as {first!r}"
            )


def _metrics(a: QueryScores, b: QueryScores, asked: Sequence[str], names: tuple[str, str]) -> list[str]:
    for metric in asked:
        for scores, name in ((a, names[0]), (b, names[1])):
            if metric not in scores.scores:
                raise DataError(f"{name} has no metric {metric!r}; {nearest(metric, scores.scores)}")
    shared = [metric for metric in a.scores if metric in b.scores]
    if not shared:
        raise DataError(
            f"{names[0]} has {', '.join(a.scores)}; {names[1]} has {', '.join(b.scores)}: nothing in common"
        )
    return list(asked) or shared
