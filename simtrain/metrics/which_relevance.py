"""Relevance as users say it: labels, pairs, lists or grades."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from simtrain.errors import ConfigError, DataError
from simtrain.metrics.graded import GradedRelevance, Grades, as_graded, has_mappings
from simtrain.metrics.labels import Labels, label_numbers
from simtrain.metrics.relevance import LabelRelevance, PairRelevance, Relevance, Relevant, as_pairs


def which_relevance(
    query_labels: Labels | None,
    gallery_labels: Labels | None,
    relevant: Relevant | None,
    grades: Grades | None,
    n_queries: int,
    n_gallery: int,
    device: torch.device | str = "cpu",
) -> Relevance:
    """Relevance by labels, or by what ``relevant`` lists; arguments as :func:`~simtrain.metrics.retrieval_report`.

    Raises:
        ConfigError: Neither or both are given, or grades without pairs.
        DataError: Labels or pairs do not fit queries and gallery.

    Example:
        >>> which_relevance(["a"], ["b", "a"], None, None, 1, 2).columns(torch.tensor([0])).tolist()
        [[1]]
    """
    if relevant is not None:
        if query_labels is not None or gallery_labels is not None:
            raise ConfigError("give labels or relevant=, not both")
        if isinstance(relevant, Tensor) and relevant.dtype == torch.bool:
            raise DataError("relevant= must be indices, got booleans; give relevant.nonzero() of a matrix of booleans")
        if grades is not None or has_mappings(relevant):
            pairs, gains = as_graded(relevant, grades, n_queries)
            return GradedRelevance(pairs.to(device), gains.to(device), n_queries, n_gallery)
        return PairRelevance(as_pairs(relevant, n_queries).to(device), n_queries, n_gallery)
    if grades is not None:
        raise ConfigError("grades= are those of relevant=, rows (query index, gallery index): give both")
    if query_labels is None or gallery_labels is None:
        raise ConfigError("relevance is not known: give query_labels (and gallery_labels with a gallery) or relevant=")
    first, second = label_numbers(query_labels, gallery_labels)
    _check_known(query_labels)
    for labels, size, name in ((first, n_queries, "queries"), (second, n_gallery, "gallery items")):
        if len(labels) != size:
            raise DataError(f"got {len(labels)} labels for {size} {name}; give one label each")
    return LabelRelevance(first.to(device), second.to(device))


def _check_known(query_labels: Labels) -> None:
    # Queries of which nobody knows the class would be each other's, and those of a gallery's distractors.
    if isinstance(query_labels, Tensor) or (isinstance(query_labels, np.ndarray) and query_labels.dtype.kind != "O"):
        return
    missing = next((number for number, label in enumerate(query_labels) if label is None), None)
    if missing is not None:
        raise DataError(
            f"the label of query {missing} is None; give each query a label, leave out those without one, or say with "
            "relevant= what each is to find (a gallery may have items labelled None: no query finds them)"
        )
