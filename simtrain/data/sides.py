"""The two sides of a search: what is searched with, and what is searched in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simtrain.errors import DataError

#: Codes of the sides in a batch, the names that they stand for, and the key under which heads are given them.
QUERY, DOCUMENT = 0, 1
SIDE_NAMES = ("query", "document")
SIDE = "side"


@dataclass(frozen=True)
class Prompts:
    """What a text encoder puts before a text, by side; callable on a batch, and light enough for loader workers.

    Args:
        query: Before texts that are searched with, such as ``"query: "`` or an instruction.
        document: Before texts that are searched in, such as ``"passage: "``.

    Example:
        >>> Prompts(query="query: ", document="passage: ")(["how old", "age()"], [QUERY, DOCUMENT])
        ['query: how old', 'passage: age()']
    """

    query: str = ""
    document: str = ""

    def __call__(self, items: Sequence[Any], sides: Sequence[int]) -> list[Any]:
        """Put each item's prompt before it; items that are no texts are left as they are."""
        if len(items) != len(sides):
            raise DataError(f"each item needs its side, got {len(items)} items and {len(sides)} sides")
        prompts = (self.query, self.document)
        return [
            prompts[side] + item if isinstance(item, str) else item for item, side in zip(items, sides, strict=True)
        ]

    def __bool__(self) -> bool:
        return bool(self.query or self.document)
