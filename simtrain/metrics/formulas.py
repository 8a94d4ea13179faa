"""The retrieval metrics' formulas: from the ranks of relevant items to one number a query.

All take ``hits`` of shape ``(queries, depth)``, True where the item at that rank is relevant (best rank first), and
return float64 of shape ``(queries,)``. A depth smaller than ``k`` means that the gallery ends there.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from simtrain.errors import ConfigError, nearest

KnownDenominator = Literal["min_k_relevant", "relevant", "hits"]
Denominator = KnownDenominator | str  # names come from configs, too


def checked_denominator(name: Denominator) -> Denominator:
    """Return the name of a divisor of average precision.

    Raises:
        ConfigError: It is not known.
    """
    if name not in get_args(KnownDenominator):
        raise ConfigError(f"unknown denominator {name!r}; {nearest(str(name), get_args(KnownDenominator))}")
    return name


def precision(hits: Bool[Tensor, "queries depth"], k: int) -> Float[Tensor, " queries"]:
    """Relevant items among the first ``k``, divided by ``k`` (also where the gallery is smaller than ``k``).

    Example:
        >>> precision(torch.tensor([[True, False]]), k=2).tolist()
        [0.5]
    """
    return hits[:, :k].sum(dim=1).double() / k


def recall(
    hits: Bool[Tensor, "queries depth"], n_relevant: Int64[Tensor, " queries"], k: int
) -> Float[Tensor, " queries"]:
    """Relevant items among the first ``k``, divided by the number of relevant items.

    Example:
        >>> recall(torch.tensor([[True, False]]), torch.tensor([4]), k=2).tolist()
        [0.25]
    """
    return hits[:, :k].sum(dim=1).double() / n_relevant


def hit_rate(hits: Bool[Tensor, "queries depth"], k: int) -> Float[Tensor, " queries"]:
    """1.0 where a relevant item is among the first ``k``, else 0.0. Others call its mean recall@k or CMC.

    Example:
        >>> hit_rate(torch.tensor([[False, True], [False, False]]), k=2).tolist()
        [1.0, 0.0]
    """
    return hits[:, :k].any(dim=1).double()


def reciprocal_rank(first_rank: Int64[Tensor, " queries"]) -> Float[Tensor, " queries"]:
    """One divided by the rank of the first relevant item; 0 where that is 0 (none was found).

    Example:
        >>> reciprocal_rank(torch.tensor([1, 4, 0])).tolist()
        [1.0, 0.25, 0.0]
    """
    return (first_rank > 0).double() / first_rank.clamp(min=1)


def r_precision(
    hits: Bool[Tensor, "queries depth"], n_relevant: Int64[Tensor, " queries"]
) -> Float[Tensor, " queries"]:
    """Relevant items among the first R, divided by R, where R is the query's own number of relevant items.

    Example:
        >>> r_precision(torch.tensor([[True, False, True]]), torch.tensor([2])).tolist()
        [0.5]
    """
    return _first(hits, n_relevant).sum(dim=1).double() / n_relevant


def average_precision(
    hits: Bool[Tensor, "queries depth"],
    n_relevant: Int64[Tensor, " queries"],
    k: int | Literal["r"] = "r",
    denominator: Denominator = "min_k_relevant",
) -> Float[Tensor, " queries"]:
    """Sum of precision at the ranks of the hits among the first ``k``, divided by ``min(k, R)``.

    With ``k="r"`` the cut is the query's own number of relevant items R, and so is the divisor: MAP@R.

    Each tool calls its own figure MAP@k:

    ====================  ======================  =============================================================
    ``denominator``       divisor                 the same figure
    ====================  ======================  =============================================================
    ``"min_k_relevant"``  min(k, R)               sentence-transformers' ``InformationRetrievalEvaluator``
    ``"relevant"``        R                       pytorch-metric-learning's ``mean_average_precision``, trec_eval
    ``"hits"``            found in the first k    torchmetrics' ``RetrievalMAP``, open-metric-learning
    ====================  ======================  =============================================================

    Args:
        hits: Whether the item at each rank is relevant.
        n_relevant: Number of relevant items R of each query.
        k: Cut-off, or ``"r"``.
        denominator: ``"min_k_relevant"``; ``"relevant"`` divides by R: 1 cannot be reached where k < R; ``"hits"`` by
            the relevant items found among the first k, which rewards finding few.

    Reference:
        Musgrave, Belongie, Lim: A Metric Learning Reality Check, 2020, section 3.2 (MAP@R).

    Example:
        >>> average_precision(torch.tensor([[False, True, True]]), torch.tensor([2])).tolist()
        [0.25]
        >>> average_precision(torch.tensor([[False, True, True]]), torch.tensor([2]), k=3).tolist()
        [0.5833333333333333]
        >>> average_precision(torch.tensor([[False, True, True]]), torch.tensor([5]), k=2, denominator="hits").tolist()
        [0.5]
    """
    counted = _first(hits, n_relevant) if k == "r" else hits[:, :k]
    divisor = n_relevant if k == "r" else n_relevant.clamp(max=k)
    if denominator == "relevant":
        divisor = n_relevant
    elif checked_denominator(denominator) == "hits":
        divisor = counted.sum(dim=1).clamp(min=1)
    ranks = torch.arange(1, counted.shape[1] + 1, device=hits.device, dtype=torch.float64)
    return (counted.cumsum(dim=1) * counted / ranks).sum(dim=1) / divisor


def ndcg(
    hits: Bool[Tensor, "queries depth"], n_relevant: Int64[Tensor, " queries"], k: int
) -> Float[Tensor, " queries"]:
    """Discounted gain of the first ``k``, divided by that of the best order of the ``n_relevant`` items.

    Reference:
        Järvelin, Kekäläinen: Cumulated Gain-Based Evaluation of IR Techniques, 2002, with gains 0 and 1 and the
        discount ``log2(rank + 1)``.

    Example:
        >>> ndcg(torch.tensor([[False, True]]), torch.tensor([1]), k=2).tolist()
        [0.6309297535714575]
    """
    counted = hits[:, :k]
    # The ideal order may need more ranks than the gallery shows when items are excluded: k ranks, or all relevant.
    length = min(k, max(counted.shape[1], int(n_relevant.max()) if len(n_relevant) else 0))
    discount = 1.0 / torch.arange(2, length + 2, device=hits.device, dtype=torch.float64).log2()
    ideal = torch.cat([discount.new_zeros(1), discount.cumsum(0)])[n_relevant.clamp(max=length)]
    return (counted * discount[: counted.shape[1]]).sum(dim=1) / ideal


def graded_ndcg(
    gains: Float[Tensor, "queries depth"], ideal: Float[Tensor, "queries most"], k: int
) -> Float[Tensor, " queries"]:
    """Discounted gain of the first ``k``, divided by that of the best order, where relevance comes in grades.

    The gain is the grade itself, as in trec_eval and BEIR; for exponential gains give ``2**grade - 1`` as grades.

    Args:
        gains: Grade of the item at each rank, 0 where it is not relevant.
        ideal: Grades of all relevant items of the query, highest first, filled up with 0.
        k: Cut-off.

    Example:
        >>> graded_ndcg(torch.tensor([[1.0, 3.0]]).double(), torch.tensor([[3.0, 1.0]]).double(), k=2).tolist()
        [0.7967075809905066]
    """
    length = max(gains[:, :k].shape[1], ideal[:, :k].shape[1])
    discount = 1.0 / torch.arange(2, length + 2, device=gains.device, dtype=torch.float64).log2()
    found, best = gains[:, :k].double(), ideal[:, :k].double()
    return (found @ discount[: found.shape[1]]) / (best @ discount[: best.shape[1]])


def _first(hits: Tensor, n_relevant: Tensor) -> Tensor:
    return hits & (torch.arange(hits.shape[1], device=hits.device) < n_relevant[:, None])
