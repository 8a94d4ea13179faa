"""Sums of listed vectors."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import embedding_bag

#: A listed slope costs as much as this many entries of a matrix product.
LISTED_COST = 16


def weighted_sums(
    rows: Int64[Tensor, " n"],
    columns: Int64[Tensor, " n"],
    weights: Float[Tensor, " n"],
    vectors: Float[Tensor, "columns dim"],
    n_rows: int,
) -> Float[Tensor, "rows dim"]:
    """For each row, the sum of the vectors listed with it, times their weights.

    Args:
        rows: Row of each listed vector, in order.
        columns: Which vector it is.
        weights: Its factor.
        vectors: Shape ``(columns, dim)``.
        n_rows: How many rows there are.

    Example:
        >>> weighted_sums(torch.tensor([1, 1]), torch.tensor([0, 2]), torch.tensor([2.0, 3.0]), torch.eye(3), 2)
        tensor([[0., 0., 0.],
                [2., 0., 3.]])
    """
    begin = torch.searchsorted(rows, torch.arange(n_rows, device=rows.device))
    # A bag reads each vector where it lies; picking and adding them would write two more copies.
    return embedding_bag(columns, vectors, begin, mode="sum", per_sample_weights=weights)


def in_row_order(
    rows: Int64[Tensor, " n"], columns: Int64[Tensor, " n"], weights: Float[Tensor, " n"]
) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"], Float[Tensor, " n"]]:
    """A list that :func:`weighted_sums` can take.

    Example:
        >>> in_row_order(torch.tensor([1, 0]), torch.tensor([5, 7]), torch.tensor([2.0, 3.0]))
        (tensor([0, 1]), tensor([7, 5]), tensor([3., 2.]))
    """
    rows, order = rows.sort(stable=True)
    return rows, columns.index_select(0, order), weights.index_select(0, order)
