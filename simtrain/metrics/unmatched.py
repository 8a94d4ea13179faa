"""Queries that have nothing to find: left out, counted as 0, or an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from simtrain.errors import ConfigError, DataError, nearest

KnownEmpty = Literal["skip", "zero", "error"]
Empty = KnownEmpty | str  # names come from configs, too


def checked_empty(empty: Empty) -> Empty:
    """Return what to do about queries without a relevant item.

    Raises:
        ConfigError: It is not known.
    """
    if empty not in get_args(KnownEmpty):
        raise ConfigError(f"unknown value of empty, {empty!r}; {nearest(str(empty), get_args(KnownEmpty))}")
    return empty


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
    if empty == "error" and len(without):
        raise DataError(
            f"{len(without)} queries have no relevant item in the gallery, such as query {int(without[0])}; leave them "
            "out with empty='skip', or count them as 0 with empty='zero'"
        )
    if empty == "zero":
        filled = {name: torch.cat([values, values.new_zeros(len(without))]) for name, values in scores.items()}
        scores = {**filled, "query": torch.cat([scores["query"], without])}
    order = scores["query"].argsort()
    return {name: values[order] for name, values in scores.items()}
