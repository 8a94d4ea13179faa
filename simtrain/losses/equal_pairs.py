"""Which labels of two lists are equal, without a matrix of all of them."""

from __future__ import annotations

import torch
from jaxtyping import Int64, Integer
from torch import Tensor

#: Comparisons of labels that are simply made; more are found by sorting.
_FEW = 1 << 15


class LabelIndex:
    """Finds the entries of one list of labels that equal those of another.

    Args:
        labels: The list to be found in, shape ``(n,)``.
        others: Shape ``(m,)``. Cost: each of them is looked up in a small table once; what has no partner costs
            nothing more.

    Example:
        >>> index = LabelIndex(torch.tensor([7, 8, 7]), torch.tensor([8, 9, 7, 7]))
        >>> rows, columns = index.pairs(0, 2)
        >>> sorted(zip(rows.tolist(), columns.tolist()))
        [(0, 2), (0, 3), (1, 0)]
    """

    def __init__(self, labels: Integer[Tensor, " n"], others: Integer[Tensor, " m"]) -> None:
        labels, others = labels.long(), others.long()
        # Those that no label of the first list equals are dropped first: in a large memory, most. The table goes by
        # the last bits of a label, and lets a few pass that only share these.
        last_bits = (1 << (16 * len(labels)).bit_length()) - 1
        wanted = torch.zeros(last_bits + 1, dtype=torch.bool, device=labels.device)
        wanted.index_fill_(0, labels & last_bits, True)
        self._labels = labels
        self._columns = wanted.index_select(0, others & last_bits).nonzero().squeeze(1)
        self._others = others.index_select(0, self._columns)
        self._is_sorted = False

    def pairs(self, first: int, last: int) -> tuple[Int64[Tensor, " pairs"], Int64[Tensor, " pairs"]]:
        """All ``(i - first, j)`` with ``labels[i] == others[j]`` and ``first <= i < last``, in the order of i and j."""
        labels = self._labels[first:last]
        if len(labels) * len(self._columns) <= _FEW:
            rows, places = (labels.unsqueeze(1) == self._others).nonzero().unbind(1)
            return rows, self._columns.index_select(0, places)
        if not self._is_sorted:
            self._others, order = self._others.sort(stable=True)
            self._columns, self._is_sorted = self._columns.index_select(0, order), True
        return _among_sorted(labels, self._others, self._columns)


def _among_sorted(labels: Tensor, others: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of each pair of equal labels, where the others, which lie in the columns, are sorted."""
    begin = torch.searchsorted(others, labels)
    counts = torch.searchsorted(others, labels, right=True).sub_(begin)
    rows = torch.arange(len(labels), device=labels.device).repeat_interleave(counts)
    # Where a row's pairs begin among the labels, less where they begin among all pairs.
    offset = begin.sub_(counts.cumsum(0)).add_(counts).index_select(0, rows)
    return rows, columns.index_select(0, offset.add_(torch.arange(len(rows), device=labels.device)))


def same_label_pairs(labels: Integer[Tensor, " n"]) -> tuple[Int64[Tensor, " pairs"], Int64[Tensor, " pairs"]]:
    """All ``(i, j)`` with ``labels[i] == labels[j]``, but for i and j the same, in the order of i and j.

    Example:
        >>> [places.tolist() for places in same_label_pairs(torch.tensor([7, 8, 7]))]
        [[0, 2], [2, 0]]
    """
    if len(labels) ** 2 <= _FEW:
        rows, columns = (labels.unsqueeze(1) == labels).fill_diagonal_(False).nonzero().unbind(1)
        return rows, columns
    rows, columns = _among_sorted(labels, *labels.sort(stable=True))
    others = (rows != columns).nonzero().squeeze(1)
    return rows.index_select(0, others), columns.index_select(0, others)
