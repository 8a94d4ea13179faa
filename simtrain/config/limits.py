"""What a value of a config may be: the limit stands beside its field, and is checked and documented from there."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, TypeVar

from simtrain.errors import nearest

T = TypeVar("T")


class Limit(ABC):
    """A condition on the value of one key. A value of null is never asked."""

    @abstractmethod
    def problem(self, key: str, value: Any) -> str | None:
        """The sentence that says why ``value`` cannot be; None where it can."""

    @abstractmethod
    def json_schema(self) -> dict[str, Any]:
        """The same condition in the words of JSON Schema."""


@dataclass(frozen=True)
class AtLeast(Limit):
    """A number from ``low`` on.

    Attributes:
        low: The smallest number.

    Example:
        >>> AtLeast(1).problem("training.epochs", 0)
        'training.epochs should be at least 1, got 0'
    """

    low: int | float

    def problem(self, key: str, value: Any) -> str | None:
        """See :class:`Limit`."""
        return None if value >= self.low else f"{key} should be at least {self.low:g}, got {value}"

    def json_schema(self) -> dict[str, Any]:
        """See :class:`Limit`."""
        return {"minimum": self.low}


@dataclass(frozen=True)
class Above(Limit):
    """A number greater than ``low``.

    Attributes:
        low: What the number has to be greater than.
        otherwise: What may be given instead, as words for the message.

    Example:
        >>> Above(0, "or null for none").problem("training.grad_clip", -1)
        'training.grad_clip should be above 0, or null for none, got -1'
    """

    low: int | float
    otherwise: str = ""

    def problem(self, key: str, value: Any) -> str | None:
        """See :class:`Limit`."""
        instead = f", {self.otherwise}" if self.otherwise else ""
        return None if value > self.low else f"{key} should be above {self.low:g}{instead}, got {value}"

    def json_schema(self) -> dict[str, Any]:
        """See :class:`Limit`."""
        return {"exclusiveMinimum": self.low}


@dataclass(frozen=True)
class Within(Limit):
    """A number from ``low`` to ``high``, both included.

    Attributes:
        low: The smallest number.
        high: The largest.

    Example:
        >>> Within(0, 1).problem("share", 1.5)
        'share should be from 0 to 1, got 1.5'
    """

    low: int | float
    high: int | float

    def problem(self, key: str, value: Any) -> str | None:
        """See :class:`Limit`."""
        return (
            None if self.low <= value <= self.high else f"{key} should be from {self.low} to {self.high}, got {value}"
        )

    def json_schema(self) -> dict[str, Any]:
        """See :class:`Limit`."""
        return {"minimum": self.low, "maximum": self.high}


@dataclass(frozen=True)
class OneOf(Limit):
    """One of some words.

    Attributes:
        words: The words.

    Example:
        >>> OneOf(("pairs", "groups")).problem("data.kind", "pair")
        "unknown data.kind 'pair'; did you mean 'pairs'? Accepted: 'groups', 'pairs'"
    """

    words: tuple[str, ...]

    def problem(self, key: str, value: Any) -> str | None:
        """See :class:`Limit`."""
        return None if value in self.words else f"unknown {key} {value!r}; {nearest(str(value), self.words)}"

    def json_schema(self) -> dict[str, Any]:
        """See :class:`Limit`."""
        return {"enum": list(self.words)}


@dataclass(frozen=True)
class Matching(Limit):
    """A text of a certain form.

    Attributes:
        pattern: Regular expression of the whole text.
        form: The form in words, with an example.

    Example:
        >>> Matching("[0-9]+:[0-9]+", "MM:SS").problem("training.pause", "3")
        "training.pause is written MM:SS, got '3'"
    """

    pattern: str
    form: str

    def problem(self, key: str, value: Any) -> str | None:
        """See :class:`Limit`."""
        return None if re.fullmatch(self.pattern, value) else f"{key} is written {self.form}, got {value!r}"

    def json_schema(self) -> dict[str, Any]:
        """See :class:`Limit`."""
        return {"pattern": f"^{self.pattern}$"}


def limited(default: T, limit: Limit) -> T:
    """A field of a config's dataclass whose value has to keep to ``limit``.

    Args:
        default: The field's default.
        limit: What the value may be.

    Returns:
        The field (typed as its default, as ``dataclasses.field`` is).
    """
    return field(default=default, metadata={"limit": limit})
