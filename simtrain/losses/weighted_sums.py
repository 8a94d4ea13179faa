"""Sums of listed vectors."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

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

    Example:
        >>> weighted_sums(torch.tensor([1, 1]), torch.tensor([0, 2]), torch.tensor([2.0, 3.0]), torch.eye(3), 2)
        tensor([[0., 0., 0.],
                [2., 0., 3.]])
    """
    # A sparse product reads each vector where it lies; picking and adding them would write two more copies.
    shape = (n_rows, len(vectors))
    listed = torch.sparse_coo_tensor(torch.stack([rows, columns]), weights, shape, check_invariants=False)
    sums: Tensor = torch.sparse.mm(listed, vectors)
    return sums
