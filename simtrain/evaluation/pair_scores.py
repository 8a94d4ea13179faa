"""Similarities of pairs beside their graded scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simtrain.evaluation.correlation import CORRELATIONS, Array, correlation

MOST_RESAMPLES = 500


@dataclass(frozen=True, eq=False)
class PairScores:
    """Similarities that a model gives to pairs, and the scores that they should follow.

    Attributes:
        values: Cosine of each pair, shape ``(pairs,)``.
        scores: Score of each pair.

    Example:
        >>> PairScores(np.array([0.1, 0.5, 0.9]), np.array([0.0, 0.5, 1.0])).metrics["spearman"]
        1.0
    """

    values: Array
    scores: Array

    @property
    def metrics(self) -> dict[str, float]:
        """Spearman's and Pearson's correlation."""
        return {name: correlation(self.values, self.scores, name) for name in CORRELATIONS}

    def interval(
        self, name: str, confidence: float = 0.95, n_resamples: int = 2_000, seed: int = 0
    ) -> tuple[float, float]:
        """Percentile bootstrap interval of a correlation, over the pairs; of at most 500 resamples, which are dear."""
        rng, size = np.random.default_rng(seed), len(self.values)
        draws = (rng.integers(size, size=size) for _ in range(min(n_resamples, MOST_RESAMPLES)))
        found = [correlation(self.values[draw], self.scores[draw], name) for draw in draws]
        low, high = np.quantile(found, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
        return float(low), float(high)
