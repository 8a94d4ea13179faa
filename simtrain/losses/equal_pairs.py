"""Which labels of two lists are equal, without a matrix of all of them."""

from __future__ import annotations

import torch
from jaxtyping import Int64, Integer
from torch import Tensor


class LabelIndex:
    """Finds the entries of one list of labels that equal those of another.

    Args:
        labels: The list to be found in, shape ``(n,)``.
        others: Shape ``(m,)``. Cost: each of them is looked up among the sorted labels once; what has no partner
            costs nothing more.

    Example:
        >>> index = LabelIndex(torch.tensor([7, 8, 7]), torch.tensor([8, 9, 7, 7]))
        >>> rows, columns = index.pairs(0, 2)
        >>> sorted(zip(rows.tolist(), columns.tolist()))
        [(0, 2), (0, 3), (1, 0)]
    """

    def __init__(self, labels: Integer[Tensor, " n"], others: Integer[Tensor, " m"]) -> None:
        # Those that no label of the first list equals are dropped first: in a large memory, most.
        known: Tensor = torch.unique(labels)
        place = torch.searchsorted(known, others).clamp_(max=max(len(known) - 1, 0))
        is_known = known[place] == others if len(known) else torch.zeros_like(others, dtype=torch.bool)
        columns = is_known.nonzero().squeeze(1)
        self._labels = labels
        self._sorted, order = others[columns].sort(stable=True)
        self._columns = columns[order]

    def pairs(self, first: int, last: int) -> tuple[Int64[Tensor, " pairs"], Int64[Tensor, " pairs"]]:
        """All ``(i - first, j)`` with ``labels[i] == others[j]`` and ``first <= i < last``, in the order of i and j."""
        labels = self._labels[first:last]
        begin = torch.searchsorted(self._sorted, labels)
        counts = torch.searchsorted(self._sorted, labels, right=True) - begin
        rows = torch.arange(len(labels), device=labels.device).repeat_interleave(counts)
        before = counts.cumsum(0) - counts
        within = torch.arange(len(rows), device=labels.device) - before[rows]
        return rows, self._columns[begin[rows] + within]
