"""When something is due in a training: by epochs, by batches, and at its end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Trigger:
    """Due at ``begin``, and every ``interval`` from there on.

    Attributes:
        begin: First count at which it is due, from 1.
        interval: Counts from one time to the next; None for never.

    Example:
        >>> [count for count in range(1, 9) if Trigger(2, 3).is_due(count)]
        [2, 5, 8]
        >>> Trigger(2, 3).next_after(2), Trigger(2, 3).next_after(0), Trigger(2, None).next_after(0)
        (5, 2, inf)
    """

    begin: int
    interval: int | None

    def is_due(self, count: int) -> bool:
        """Whether it is due at a count."""
        return self.interval is not None and count >= self.begin and (count - self.begin) % self.interval == 0

    def next_after(self, count: int) -> float | int:
        """The first count after this one at which it is due; infinite for none."""
        if self.interval is None:
            return math.inf
        return max(self.begin, count + self.interval - (count - self.begin) % self.interval)


class Moment(NamedTuple):
    """A place in a training, after a batch.

    Attributes:
        epoch: The epoch, from 1.
        iteration: The batch, counted over all epochs, from 1.
        ends_epoch: It was the epoch's last one.
        ends_training: It was the last one of all.
    """

    epoch: int
    iteration: int
    ends_epoch: bool
    ends_training: bool


@dataclass(frozen=True)
class StageTriggers:
    """When a stage is run in a training. Several reasons at one batch are one.

    Attributes:
        epochs: By the number of the epoch, at its end.
        iterations: By the number of the batch, counted over all epochs.
        at_end: After the last batch, whatever its number.

    Example:
        >>> triggers = StageTriggers(Trigger(1, 2), Trigger(10, 10), at_end=True)
        >>> triggers.is_due(Moment(2, 13, ends_epoch=True, ends_training=False))
        False
        >>> triggers.is_due(Moment(2, 13, ends_epoch=True, ends_training=True))
        True
    """

    epochs: Trigger
    iterations: Trigger
    at_end: bool

    def is_due(self, now: Moment) -> bool:
        """Whether the stage is to be run now."""
        if self.at_end and now.ends_training:
            return True
        return self.iterations.is_due(now.iteration) or (now.ends_epoch and self.epochs.is_due(now.epoch))

    @property
    def is_ever_due(self) -> bool:
        """Whether the stage is run at all."""
        return self.at_end or self.epochs.interval is not None or self.iterations.interval is not None
