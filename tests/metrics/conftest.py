from __future__ import annotations

import math
from collections.abc import Callable

import pytest

Metrics = dict[str, float]


def metrics_of_query(order: list[int], relevant: set[int], cuts: tuple[int, ...]) -> Metrics:
    """Every metric from its definition: ``order`` is the full ranking, all of ``relevant`` stands in it."""
    ranks = [rank for rank, item in enumerate(order, start=1) if item in relevant]
    r = len(ranks)
    metrics = {"mrr": 1 / ranks[0], "r_precision": sum(rank <= r for rank in ranks) / r}
    metrics["map@r"] = sum(i / rank for i, rank in enumerate(ranks, start=1) if rank <= r) / r
    for k in cuts:
        found = [rank for rank in ranks if rank <= k]
        gain = sum(1 / math.log2(rank + 1) for rank in found)
        ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, r) + 1))
        metrics[f"precision@{k}"] = len(found) / k
        metrics[f"recall@{k}"] = len(found) / r
        metrics[f"hit_rate@{k}"] = float(bool(found))
        metrics[f"ndcg@{k}"] = gain / ideal
        metrics[f"map@{k}"] = sum(i / rank for i, rank in enumerate(found, start=1)) / min(k, r)
    return metrics


def brute_force_search(
    scores: list[list[float]],
    is_relevant: Callable[[int, int], bool],
    is_excluded: Callable[[int, int], bool],
    cuts: tuple[int, ...] = (1, 5, 10),
) -> dict[int, Metrics]:
    """Full sort of every row in plain Python: by score, ties by index."""
    results = {}
    for query, row in enumerate(scores):
        allowed = [item for item in range(len(row)) if not is_excluded(query, item)]
        order = sorted(allowed, key=lambda item: (-row[item], item))
        relevant = {item for item in allowed if is_relevant(query, item)}
        if relevant:
            results[query] = metrics_of_query(order, relevant, cuts)
    return results


@pytest.fixture(scope="session")
def brute_force() -> Callable[..., dict[int, Metrics]]:
    return brute_force_search
