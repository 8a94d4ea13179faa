"""What miners give: rows of triplets, or of pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from simtrain.losses.equal_pairs import LabelIndex

#: Anchors, positives and negatives.
Triplets = tuple[Tensor, Tensor, Tensor]
#: Anchors and their positives, anchors and their negatives.
Pairs = tuple[Tensor, Tensor, Tensor, Tensor]


def as_triplets(indices: Triplets | Pairs) -> Triplets:
    """Triplets as they are; of pairs, each anchor's positives with each of its negatives.

    Example:
        >>> pairs = (torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([0, 0]), torch.tensor([2, 3]))
        >>> [rows.tolist() for rows in as_triplets(pairs)]
        [[0, 0], [1, 1], [2, 3]]
    """
    if len(indices) == 3:
        return indices
    first, positives, second, negatives = indices
    i, j = LabelIndex(first, second).pairs(0, len(first))
    return first[i], positives[i], negatives[j]


def as_pairs(indices: Triplets | Pairs) -> Pairs:
    """Pairs as they are; of triplets, the anchor with its positive and with its negative, each pair once.

    Example:
        >>> triplets = (torch.tensor([0, 0]), torch.tensor([1, 1]), torch.tensor([2, 3]))
        >>> [rows.tolist() for rows in as_pairs(triplets)]
        [[0], [1], [0, 0], [2, 3]]
    """
    if len(indices) == 4:
        return indices
    anchors, positives, negatives = indices
    (first, positives), (second, negatives) = (_distinct(anchors, rows) for rows in (positives, negatives))
    return first, positives, second, negatives


def _distinct(anchors: Tensor, rows: Tensor) -> Tensor:
    pairs: Tensor = torch.unique(torch.stack([anchors, rows]), dim=1)
    return pairs
