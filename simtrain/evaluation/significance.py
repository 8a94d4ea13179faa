"""How sure a figure is: bootstrap intervals over queries and a paired test between two models."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from simtrain.errors import ConfigError, DataError

Values = Tensor | NDArray[Any] | Sequence[float]
Clusters = Tensor | NDArray[Any] | Sequence[Any]
FloatArray = NDArray[np.float64]

BLOCK_DRAWS = 2_000_000


@dataclass(frozen=True)
class PairedTest:
    """Outcome of :func:`paired_test`.

    Attributes:
        difference: Mean of ``a - b`` over queries.
        low: Lower end of the difference's bootstrap interval.
        high: Upper end.
        p_value: Probability of a difference at least as large, either way, if ``a`` and ``b`` were exchangeable.
    """

    difference: float
    low: float
    high: float
    p_value: float


def bootstrap_interval(
    values: Values,
    confidence: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
    *,
    clusters: Clusters | None = None,
) -> tuple[float, float]:
    """Interval of the mean over queries, by the percentile bootstrap.

    One value, or values that are all equal, give an interval of no width: resampling cannot tell more.

    Args:
        values: A score a query, shape ``(queries,)``, for example of :func:`simtrain.metrics.retrieval_scores`.
        confidence: Share of resampled means inside, between 0 and 1, default 0.95.
        n_resamples: How many resamples to draw.
        seed: Seed of the draws; the same seed gives the same interval.
        clusters: A label a query; queries that belong together (of one document or one user) are drawn together.

    Returns:
        Lower and upper end.

    Raises:
        ConfigError: ``confidence`` or ``n_resamples`` is out of range.
        DataError: No values, NaN or infinity among them, or another number of clusters than of values.

    Reference:
        Efron, Tibshirani: An Introduction to the Bootstrap, 1993, chapter 13.

    Example:
        >>> low, high = bootstrap_interval([0.0, 1.0, 1.0, 1.0] * 25)
        >>> round(low, 2), round(high, 2)
        (0.66, 0.83)
    """
    _check_settings(confidence, n_resamples)
    numbers = _as_array(values, "values")
    return _interval(*_by_cluster(numbers, clusters), confidence, n_resamples, seed)


def paired_test(
    a: Values,
    b: Values,
    n_resamples: int = 10_000,
    seed: int = 0,
    *,
    confidence: float = 0.95,
    clusters: Clusters | None = None,
) -> PairedTest:
    """Compare two models on the same queries: a two-sided sign-flip permutation test, with an interval.

    With few queries (``2 ** queries <= n_resamples``) all flips are tried and the p-value is exact; else it is
    ``(1 + extreme) / (1 + n_resamples)`` and never 0. One query, or equal scores throughout, give a p-value of 1.

    Args:
        a: A score a query of the first model, shape ``(queries,)``.
        b: Scores of the second model, for the same queries in the same order.
        n_resamples: Random flips of the test, and resamples of the interval.
        seed: Seed of the draws.
        confidence: Of the interval of the difference, default 0.95.
        clusters: A label a query; queries that belong together are flipped and drawn together.

    Returns:
        Difference ``a - b`` of the means, its interval and the p-value.

    Raises:
        ConfigError: ``confidence`` or ``n_resamples`` is out of range.
        DataError: Different lengths, no values, or NaN or infinity among them.

    Reference:
        Smucker, Allan, Carterette: A Comparison of Statistical Significance Tests for IR Evaluation, 2007.

    Example:
        >>> paired_test([1.0, 1.0, 0.5, 1.0], [0.5, 0.5, 0.0, 0.5])
        PairedTest(difference=0.5, low=0.5, high=0.5, p_value=0.125)
    """
    _check_settings(confidence, n_resamples)
    first, second = _as_array(a, "a"), _as_array(b, "b")
    if len(first) != len(second):
        raise DataError(f"a has {len(first)} values, b has {len(second)}; give both models' scores of the same queries")
    sums, sizes = _by_cluster(first - second, clusters)
    low, high = _interval(sums, sizes, confidence, n_resamples, seed)
    difference = float(sums.sum() / sizes.sum())
    return PairedTest(difference, low, high, _sign_flip_p_value(sums, n_resamples, seed))


def _check_settings(confidence: float, n_resamples: int) -> None:
    if not 0.0 < confidence < 1.0:
        raise ConfigError(f"confidence lies between 0 and 1, got {confidence}")
    if n_resamples < 1:
        raise ConfigError(f"n_resamples is a positive integer, got {n_resamples}")


def _as_array(values: Values, name: str) -> FloatArray:
    plain = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else values
    numbers = np.asarray(plain, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers):
        raise DataError(f"{name} must be one score a query, at least one, got shape {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise DataError(f"{name}[{int(np.argmin(np.isfinite(numbers)))}] is NaN or infinite; leave such queries out")
    return numbers


def _by_cluster(values: FloatArray, clusters: Clusters | None) -> tuple[FloatArray, FloatArray]:
    """Sum and size of each cluster; without clusters each value is one."""
    if clusters is None:
        return values, np.ones(len(values))
    labels = clusters.tolist() if isinstance(clusters, Tensor | np.ndarray) else list(clusters)
    if len(labels) != len(values):
        raise DataError(f"got {len(labels)} clusters for {len(values)} values; give one label a query")
    numbers: dict[Hashable, int] = {}
    owner = np.array([numbers.setdefault(label, len(numbers)) for label in labels])
    return np.bincount(owner, weights=values).astype(np.float64), np.bincount(owner).astype(np.float64)


def _interval(
    sums: FloatArray, sizes: FloatArray, confidence: float, n_resamples: int, seed: int
) -> tuple[float, float]:
    if np.ptp(sums / sizes) == 0.0:  # rounding in sums of equal values would give the interval a width
        return (float(sums[0] / sizes[0]),) * 2
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [
            sums[draw].sum(axis=1) / sizes[draw].sum(axis=1)
            for draw in (
                rng.integers(len(sums), size=(n, len(sums)), dtype=np.int32) for n in _blocks(n_resamples, sums)
            )
        ]
    )
    low, high = np.quantile(means, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
    return float(low), float(high)


def _sign_flip_p_value(sums: FloatArray, n_resamples: int, seed: int) -> float:
    observed = abs(float(sums.sum()))
    # Flips that give the same total in another order of addition must count as equal.
    threshold = observed - 1e-12 * float(np.abs(sums).sum())
    n = len(sums)
    if 2 ** min(n, 63) <= n_resamples:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float(np.mean(np.abs(signs @ sums) >= threshold))
    rng = np.random.default_rng(seed)
    extreme = sum(_extreme(rng, sums, threshold, block) for block in _blocks(n_resamples, sums))
    return (1 + extreme) / (1 + n_resamples)


def _extreme(rng: np.random.Generator, sums: FloatArray, threshold: float, n: int) -> int:
    bits = np.unpackbits(rng.integers(256, size=(n, -(-len(sums) // 8)), dtype=np.uint8), axis=1, count=len(sums))
    totals = 2.0 * (bits.astype(np.float64) @ sums) - sums.sum()
    return int((np.abs(totals) >= threshold).sum())


def _blocks(n_resamples: int, values: FloatArray) -> Iterator[int]:
    """Numbers of resamples that together are ``n_resamples``, each small enough for a few tens of megabytes."""
    size = max(1, BLOCK_DRAWS // len(values))
    for done in range(0, n_resamples, size):
        yield min(size, n_resamples - done)
