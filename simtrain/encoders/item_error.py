"""The error for one wrong item among many, which keeps the item's position."""

from __future__ import annotations

from simtrain.errors import DataError


class ItemError(DataError):
    """One item cannot be encoded.

    Collate functions number the items of their batch. Whoever made the batch knows the items' positions
    in the data and raises the error again with those.

    Args:
        position: Position of the item, counted from 0.
        reason: What is wrong with it and what would be right.

    Example:
        >>> str(ItemError(3, "is empty"))
        'item 3 is empty'
    """

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(position, reason)
        self.position = position
        self.reason = reason

    def __str__(self) -> str:
        return f"item {self.position} {self.reason}"
