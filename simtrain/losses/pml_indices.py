"""Index tuples in the form of pytorch-metric-learning: (anchors, positives, negatives) or two lists of pairs."""

from __future__ import annotations

from typing import TypeAlias

from jaxtyping import Bool, Integer
from torch import Tensor

from simtrain.losses.group_masks import memory_masks

#: ``(a, p, n)``: triplets; ``(a1, p, a2, n)``: pairs that match, and pairs that do not.
Indices: TypeAlias = tuple[Tensor, ...]


def memory_pairs(
    groups: Integer[Tensor, " batch"],
    memory_groups: Integer[Tensor, " memory"],
    own: Bool[Tensor, "batch memory"] | None = None,
) -> Indices:
    """All pairs of batch rows with memory rows, except with entries of the row's own item.

    Example:
        >>> import torch
        >>> own = torch.tensor([[True, False, False]])
        >>> [rows.tolist() for rows in memory_pairs(torch.tensor([7]), torch.tensor([7, 7, 8]), own)]
        [[0], [1], [0], [2]]
    """
    positive, negative = memory_masks(groups, memory_groups, own)
    return (*positive.nonzero(as_tuple=True), *negative.nonzero(as_tuple=True))


def without_own(indices: Indices, own: Bool[Tensor, "batch memory"] | None) -> Indices:
    """Mined indices without comparisons of an item with an entry of its own.

    Args:
        indices: Triplets ``(a, p, n)`` or pairs ``(a1, p, a2, n)``; anchors are batch rows, the others memory rows.
        own: Where a memory row is the batch row's own item.

    Returns:
        The same form.

    Example:
        >>> import torch
        >>> a, p, n = torch.tensor([0, 0]), torch.tensor([0, 1]), torch.tensor([2, 2])
        >>> [rows.tolist() for rows in without_own((a, p, n), torch.tensor([[True, False, False]]))]
        [[0], [1], [2]]
    """
    if own is None:
        return indices
    if len(indices) == 3:
        anchors, positives, negatives = indices
        keep = ~(own[anchors, positives] | own[anchors, negatives])
        return anchors[keep], positives[keep], negatives[keep]
    first, positives, second, negatives = indices
    keep_first, keep_second = ~own[first, positives], ~own[second, negatives]
    return first[keep_first], positives[keep_first], second[keep_second], negatives[keep_second]
