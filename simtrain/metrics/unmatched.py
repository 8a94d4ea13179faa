"""Queries that have nothing to find: left out, counted as 0, or an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from simtrain.errors import ConfigError, DataError, nearest
from simtrain.metrics.exclusion import Exclusion
from simtrain.metrics.relevance import Relevance

KnownEmpty = Literal["skip", "zero", "error"]
Empty = KnownEmpty | str  # names come from configs, too

BLOCK = 256


def checked_empty(empty: Empty) -> Empty:
    """Return what to do about queries without a relevant item.

    Raises:
        ConfigError: It is not known.
    """
    if empty not in get_args(KnownEmpty):
        raise ConfigError(f"unknown value of empty, {empty!r}; {nearest(str(empty), get_args(KnownEmpty))}")
    return empty


def check_matched(relevance: Relevance, exclusion: Exclusion, empty: Empty) -> None:
    """Tell before anything is encoded or searched that a query has nothing to find, where that is an error.

    Args:
        relevance: What is relevant to what.
        exclusion: What is left out of the search.
        empty: ``"skip"``, ``"zero"`` or ``"error"``.

    Raises:
        DataError: There is such a query, and ``empty`` is ``"error"``.

    Example:
        >>> one = torch.tensor([0])
        >>> relevance = Relevance(items=one, start=one, count=one + 1)
        >>> check_matched(relevance, Exclusion(None, None, n_queries=1, n_gallery=1), "error")
    """
    if empty != "error":
        return
    counts = relevance.counts()
    queries = torch.arange(len(counts), device=counts.device)
    left_out = [exclusion.count(some, relevance.columns(some)) for some in torch.split(queries, BLOCK)]
    _check_none((counts <= torch.cat([*left_out, counts[:0]])).nonzero()[:, 0])


def with_unmatched(scores: Mapping[str, Tensor], n_queries: int, empty: Empty) -> dict[str, Tensor]:
    """Scores by ascending query; queries without a relevant item are treated as asked for.

    Args:
        scores: Under ``"query"`` the numbers of the queries that have one, under each metric's name its values.
        n_queries: Number of all queries.
        empty: ``"skip"``, ``"zero"`` or ``"error"``.

    Raises:
        DataError: There is such a query, and ``empty`` is ``"error"``.

    Example:
        >>> scores = {"query": torch.tensor([2, 0]), "mrr": torch.tensor([0.5, 1.0])}
        >>> with_unmatched(scores, 3, "zero")["mrr"].tolist()
        [1.0, 0.0, 0.5]
    """
    missing = torch.ones(n_queries, dtype=torch.bool, device=scores["query"].device)
    missing[scores["query"]] = False
    without = missing.nonzero()[:, 0]
    if empty == "error":
        _check_none(without)
    if empty == "zero":
        filled = {name: torch.cat([values, values.new_zeros(len(without))]) for name, values in scores.items()}
        scores = {**filled, "query": torch.cat([scores["query"], without])}
    order = scores["query"].argsort()
    return {name: values[order] for name, values in scores.items()}


def _check_none(queries: Tensor) -> None:
    if len(queries):
        raise DataError(
            f"{len(queries)} queries have no relevant item in the gallery, such as query {int(queries[0])}; leave them "
            "out with empty='skip', or count them as 0 with empty='zero'"
        )
