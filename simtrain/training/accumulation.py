"""Which batches share an optimizer step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class AccumulationWindow:
    """The batches whose gradients are summed for one step, and how many of them are done.

    Windows end at multiples of ``size`` and at ``total``, so that the last one may be shorter, and so may the first
    one of a run that starts in the middle. A full window counts as the present one until the next batch begins.

    Attributes:
        size: Batches of a full window.
        count: Batches done.
        start: Batches that were done when the window began.
        total: Batches there will be; -1 for unknown, in which case every window waits for its full size.

    Example:
        >>> window = AccumulationWindow(size=3, total=8)
        >>> lengths = []
        >>> for _ in range(8):
        ...     lengths.append(window.next_length)
        ...     window.advance()
        >>> lengths
        [3, 3, 3, 3, 3, 3, 2, 2]
    """

    size: int = 1
    count: int = 0
    start: int = 0
    total: int = -1

    @property
    def is_full(self) -> bool:
        """The last batch done completed its window."""
        return self.count >= self._end(self.start)

    @property
    def is_open(self) -> bool:
        """Some batches of the window are done, and some are not."""
        return self.start < self.count and not self.is_full

    @property
    def length(self) -> int:
        """How many batches the present window has."""
        return self._end(self.start) - self.start

    @property
    def next_completes(self) -> bool:
        """The next batch completes its window."""
        return self.count + 1 >= self._end(self._next_start)

    @property
    def next_length(self) -> int:
        """How many batches the next batch's window has."""
        return self._end(self._next_start) - self._next_start

    def advance(self) -> None:
        """Count a batch."""
        self.start = self._next_start
        self.count += 1

    def discard(self) -> None:
        """Begin anew with the next batch: what an open window had collected is gone."""
        if self.is_open:
            self.start = self.count

    @property
    def _next_start(self) -> int:
        return self.count if self.is_full else self.start

    def _end(self, start: int) -> int:
        end = (start // self.size + 1) * self.size
        return min(end, self.total) if start < self.total else end
