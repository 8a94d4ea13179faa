"""One result of a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Hit:
    """An item that a search found.

    Attributes:
        id: The item's id in the index: an integer or the text of a UUID.
        score: Similarity to the query, larger is nearer; for ``"euclidean"`` the distance, smaller is nearer.
        payload: What was stored with the item.

    Example:
        >>> Hit(id=3, score=0.9, payload={"text": "a red shoe"}).payload["text"]
        'a red shoe'
    """

    id: int | str
    score: float
    payload: Mapping[str, Any] = field(default_factory=dict)
