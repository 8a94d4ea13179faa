"""Something that is due again and again."""

from __future__ import annotations

import math
from typing import NamedTuple


class Interval(NamedTuple):
    """Counts at which something is due: the first one, and every so many from there.

    Attributes:
        begin: The first one; None for none.
        every: Steps from one to the next; None for none.

    Example:
        >>> Interval(4, 10).passed(3, 5), Interval(4, 10).passed(4, 13), Interval(4, 10).ahead(4)
        (True, False, 10)
    """

    begin: int | None
    every: int | None

    def passed(self, before: int, now: int) -> bool:
        """Whether one of the counts is in ``(before, now]``."""
        if self.every is None or self.begin is None or now < self.begin:
            return False
        return before < self.begin + (now - self.begin) // self.every * self.every

    def ahead(self, now: int) -> int | float:
        """Steps to the next one; infinite for none."""
        if self.every is None or self.begin is None:
            return math.inf
        return self.begin - now if now < self.begin else self.every - (now - self.begin) % self.every
