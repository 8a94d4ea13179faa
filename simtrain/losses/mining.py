"""Picking candidates by distance, in memory of the order of the distance matrix.

Everything here returns column numbers or counts and works without gradient: losses then look up what was picked.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


@torch.no_grad()
def nearest_index(
    distances: Float[Tensor, "anchors candidates"], among: Bool[Tensor, "anchors candidates"]
) -> tuple[Int64[Tensor, " anchors"], Bool[Tensor, " anchors"]]:
    """Column of the nearest candidate of each anchor.

    Args:
        distances: Shape ``(anchors, candidates)``.
        among: Which candidates may be picked.

    Returns:
        ``(index, found)``, each of shape ``(anchors,)``. An anchor without candidates is given any column.

    Example:
        >>> nearest_index(torch.tensor([[0.1, 0.2, 0.3]]), torch.tensor([[False, True, True]]))
        (tensor([1]), tensor([True]))
    """
    nearest, index = torch.where(among, distances, torch.inf).min(dim=1)
    # Not `<`: a NaN is found, so that the loss becomes NaN too and is noticed.
    return index, nearest != torch.inf


@torch.no_grad()
def farthest_index(
    distances: Float[Tensor, "anchors candidates"], among: Bool[Tensor, "anchors candidates"]
) -> tuple[Int64[Tensor, " anchors"], Bool[Tensor, " anchors"]]:
    """Column of the farthest candidate of each anchor.

    Args:
        distances: Shape ``(anchors, candidates)``.
        among: Which candidates may be picked.

    Returns:
        ``(index, found)``, each of shape ``(anchors,)``. An anchor without candidates is given any column.

    Example:
        >>> farthest_index(torch.tensor([[0.1, 0.2, 0.3]]), torch.tensor([[True, True, False]]))
        (tensor([1]), tensor([True]))
    """
    farthest, index = torch.where(among, distances, -torch.inf).max(dim=1)
    return index, farthest != -torch.inf


@torch.no_grad()
def nearest_index_beyond(
    distances: Float[Tensor, "anchors candidates"], among: Bool[Tensor, "anchors candidates"]
) -> Int64[Tensor, "anchors candidates"]:
    """For each anchor and each column: the nearest candidate that is farther than that column.

    Where no candidate is farther, the farthest one is picked.

    Args:
        distances: Shape ``(anchors, candidates)``.
        among: Which candidates may be picked. An anchor that has none gets any columns.

    Returns:
        Shape ``(anchors, candidates)``.

    Example:
        >>> nearest_index_beyond(torch.tensor([[0.1, 0.2, 0.3, 0.4]]), torch.tensor([[False, False, True, True]]))
        tensor([[2, 2, 3, 3]])
    """
    ordered, order = torch.where(among, distances, torch.inf).sort(dim=1)
    place = torch.searchsorted(ordered, distances.contiguous(), right=True)
    last = among.sum(dim=1, keepdim=True).sub_(1).clamp_(min=0)
    return order.gather(1, torch.minimum(place, last, out=place))


@torch.no_grad()
def count_below(
    values: Float[Tensor, "anchors candidates"],
    among: Bool[Tensor, "anchors candidates"],
    limits: Float[Tensor, "anchors columns"],
    *,
    or_equal: bool = False,
) -> Int64[Tensor, "anchors columns"]:
    """For each anchor and each limit: how many of the anchor's values are smaller.

    Args:
        values: Shape ``(anchors, candidates)``.
        among: Which values count.
        limits: Shape ``(anchors, columns)``, finite.
        or_equal: Whether values equal to the limit count too.

    Returns:
        Shape ``(anchors, columns)``.

    Example:
        >>> values, among = torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([[True, True, False]])
        >>> count_below(values, among, torch.tensor([[2.5, 3.0]]))
        tensor([[1, 1]])
    """
    ordered = torch.where(among, values, torch.inf).sort(dim=1).values
    return torch.searchsorted(ordered, limits.contiguous(), right=or_equal)
