"""Which pairs of a batch are candidates of one query."""

from __future__ import annotations

from jaxtyping import Bool, Int64, Integer
from torch import Tensor


def same_query(
    pairs: Int64[Tensor, "n_pairs 2"], subgroups: Integer[Tensor, " rows"]
) -> Bool[Tensor, "n_pairs n_pairs"]:
    """Which pairs belong to one query: those of the same first row, and those of the same non-zero subgroup.

    Args:
        pairs: Shape ``(n_pairs, 2)``.
        subgroups: Subgroup of each row of the batch, shape ``(rows,)``; 0 means that none was given.

    Returns:
        Shape ``(n_pairs, n_pairs)``; each pair belongs to its own query.

    Example:
        >>> import torch
        >>> same_query(torch.tensor([[0, 2], [0, 3], [1, 2]]), torch.zeros(4, dtype=torch.long)).int().tolist()
        [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    """
    queries = pairs[:, 0]
    of = subgroups[queries]
    return (queries.unsqueeze(1) == queries) | ((of.unsqueeze(1) == of) & (of != 0))
