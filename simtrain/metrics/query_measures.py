"""All metrics of ranked queries, by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

from torch import Tensor

from simtrain.errors import ConfigError
from simtrain.metrics.formulas import (
    Denominator,
    average_precision,
    graded_ndcg,
    hit_rate,
    ndcg,
    precision,
    r_precision,
    recall,
    reciprocal_rank,
)
from simtrain.metrics.ranking import Ranked


def checked_cuts(k: int | Sequence[int]) -> list[int]:
    """Cut-offs in ascending order, each once.

    Raises:
        ConfigError: There is none, or one is not a positive integer.

    Example:
        >>> checked_cuts((5, 1, 5))
        [1, 5]
    """
    cuts: list[Any] = list(k) if isinstance(k, Iterable) else [k]
    if not cuts or any(isinstance(cut, bool) or not isinstance(cut, Integral) or cut < 1 for cut in cuts):
        raise ConfigError(f"k is a positive integer or a sequence of them, got {k!r}")
    return sorted({int(cut) for cut in cuts})


def query_measures(
    ranked: Ranked, cuts: Sequence[int], denominator: Denominator = "min_k_relevant"
) -> dict[str, Tensor]:
    """Every metric of each query; under ``"query"`` and ``"n_relevant"`` its index and its relevant items."""
    hits, n_relevant = ranked.hits, ranked.n_relevant
    scores = {"query": ranked.queries, "n_relevant": n_relevant, "mrr": reciprocal_rank(ranked.first_rank)}
    scores["r_precision"] = r_precision(hits, n_relevant)
    scores["map@r"] = average_precision(hits, n_relevant, "r")
    for k in cuts:
        scores[f"precision@{k}"] = precision(hits, k)
        scores[f"recall@{k}"] = recall(hits, n_relevant, k)
        scores[f"hit_rate@{k}"] = hit_rate(hits, k)
        scores[f"map@{k}"] = average_precision(hits, n_relevant, k, denominator)
        scores[f"ndcg@{k}"] = measured_ndcg(ranked, k)
    return scores


def measured_ndcg(ranked: Ranked, k: int) -> Tensor:
    """NDCG of each query: by grades where relevance has them, else with gains 0 and 1."""
    if ranked.gains is None or ranked.ideal is None:
        return ndcg(ranked.hits, ranked.n_relevant, k)
    return graded_ndcg(ranked.gains, ranked.ideal, k)
