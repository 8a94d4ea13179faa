"""Means of query scores by group: per class, per camera, per language."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from torch import Tensor

from simtrain.errors import DataError
from simtrain.metrics.labels import Labels, label_numbers


def grouped_report(scores: Mapping[str, Tensor], groups: Labels) -> dict[Hashable, dict[str, float]]:
    """Average query scores within groups of queries.

    Args:
        scores: What :func:`~simtrain.metrics.retrieval_scores` gives.
        groups: Group of every query of the evaluation, also of those without a relevant item: its class label, the
            camera, the language. Integers or any hashables, shape ``(queries,)``.

    Returns:
        For each group with a measured query, in the order of first appearance, the means and ``n_queries``, the number
        of measured queries.

    Raises:
        DataError: There is no group for a measured query, or groups are floating point.

    Example:
        >>> scores = {"query": torch.tensor([0, 2, 3]), "mrr": torch.tensor([1.0, 0.5, 0.0])}
        >>> grouped_report(scores, ["en", "en", "de", "de"])
        {'en': {'mrr': 1.0, 'n_queries': 1.0}, 'de': {'mrr': 0.25, 'n_queries': 2.0}}
    """
    queries = scores["query"].cpu()
    numbers, _ = label_numbers(groups, groups)
    if len(queries) and int(queries.max()) >= len(numbers):
        raise DataError(f"got {len(numbers)} groups, but query {int(queries.max())} was measured; give one a query")
    names = groups.tolist() if hasattr(groups, "tolist") else list(groups)
    values, place = torch.unique(numbers.cpu()[queries], return_inverse=True)
    counts = torch.bincount(place, minlength=len(values))
    means = {
        name: torch.zeros(len(values), dtype=torch.float64).index_add_(0, place, series.cpu().double()) / counts
        for name, series in scores.items()
        if name != "query"
    }
    first = torch.full((len(values),), len(numbers)).scatter_reduce_(0, place, queries, "amin")
    return {
        names[int(first[row])]: {
            **{name: float(series[row]) for name, series in means.items()},
            "n_queries": float(counts[row]),
        }
        for row in first.argsort().tolist()
    }
