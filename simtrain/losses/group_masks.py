"""Which candidates are an anchor's positives and negatives."""

from __future__ import annotations

from jaxtyping import Bool, Integer
from torch import Tensor


def batch_masks(groups: Integer[Tensor, " batch"]) -> tuple[Bool[Tensor, "batch batch"], Bool[Tensor, "batch batch"]]:
    """Positives and negatives among the items of one batch. An item is not its own positive.

    Args:
        groups: Group of each item, shape ``(batch,)``.

    Returns:
        ``(positive, negative)``, each of shape ``(batch, batch)``; row i is for anchor i.

    Example:
        >>> import torch
        >>> positive, negative = batch_masks(torch.tensor([7, 7, 8]))
        >>> positive.int().tolist(), negative.int().tolist()
        ([[0, 1, 0], [1, 0, 0], [0, 0, 0]], [[0, 0, 1], [0, 0, 1], [1, 1, 0]])
    """
    same = groups.unsqueeze(1) == groups
    negative = ~same
    return same.fill_diagonal_(False), negative


def memory_masks(
    groups: Integer[Tensor, " batch"],
    memory_groups: Integer[Tensor, " memory"],
    own: Bool[Tensor, "batch memory"] | None = None,
) -> tuple[Bool[Tensor, "batch memory"], Bool[Tensor, "batch memory"]]:
    """Positives and negatives of a batch's items among remembered ones.

    Args:
        groups: Group of each item, shape ``(batch,)``.
        memory_groups: Group of each memory row, shape ``(memory,)``.
        own: Where true, the memory row is the item itself, which is neither. Shape ``(batch, memory)``.

    Returns:
        ``(positive, negative)``, each of shape ``(batch, memory)``; row i is for item i.

    Example:
        >>> import torch
        >>> own = torch.tensor([[True, False, False]])
        >>> positive, negative = memory_masks(torch.tensor([7]), torch.tensor([7, 7, 8]), own)
        >>> positive.int().tolist(), negative.int().tolist()
        ([[0, 1, 0]], [[0, 0, 1]])
    """
    same = groups.unsqueeze(1) == memory_groups
    if own is None:
        return same, ~same
    # For bools, a > b is "a and not b" in one pass over the memory.
    return same > own, (same | own).logical_not_()
