"""What an error analysis finds, one thing each."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class WorstQuery:
    """A query that finds little.

    Attributes:
        query: Its number.
        score: Value of the metric.
        first_relevant: Rank of the first relevant item, from 1.
        found: Numbers of the gallery items that it finds first.
        found_scores: Their cosines.
    """

    query: int
    score: float
    first_relevant: int
    found: list[int]
    found_scores: list[float]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class ConfusedClasses:
    """Two classes of which items of one find items of the other.

    Attributes:
        label: Class of the queries.
        other: Class of what they find.
        count: How many of the neighbours that were looked at.
        share: Of all neighbours of the queries of this class.
    """

    label: Any
    other: Any
    count: int
    share: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class SuspectLabel:
    """An item whose neighbours agree on another label than its own.

    Attributes:
        item: Its number.
        label: Its label.
        suggested: The label of most of its neighbours, by cosine.
        share: Share of its neighbours' cosines that has the suggested label.
        own_share: Share that has its own.
    """

    item: int
    label: Any
    suggested: Any
    share: float
    own_share: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class NearDuplicate:
    """An item of one set that is almost one of another.

    Attributes:
        item: Number in the first set.
        other: Number in the second set.
        score: Their cosine.
    """

    item: int
    other: int
    score: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)
