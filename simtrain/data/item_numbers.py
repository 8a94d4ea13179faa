"""One number for each item of a data set, by which it is known again in later batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor


def item_numbers(owners: Sequence[int], size: int) -> Int64[Tensor, " items"]:
    """Numbers of a batch's items: those of a sample's second items follow after all first ones, and so on.

    Args:
        owners: Row of the data set that each item is of, in the order of the batch.
        size: Samples in the data set.

    Returns:
        Shape ``(items,)``.

    Example:
        >>> item_numbers([3, 1, 3, 1], size=10)  # two pairs: 3 and 1 of the first objects, then of the second ones
        tensor([ 3,  1, 13, 11])
    """
    owner = torch.as_tensor(owners, dtype=torch.long)
    order = owner.argsort(stable=True)
    ranks = torch.arange(len(owner)) - torch.searchsorted(owner[order], owner[order])
    return owner + size * torch.empty_like(owner).scatter_(0, order, ranks)
