"""A progress bar that shows up only where somebody waits for it."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

logger = logging.getLogger("simtrain")

T = TypeVar("T")
#: Least seconds between two drawings of a bar, and between two lines where there is no terminal.
REDRAW_SECONDS, LINE_SECONDS = 0.1, 10.0
#: Lines come at these parts of the work, so that there are few of them.
LINES = 10


class Progress:
    """A bar on stderr with items per second and the time left.

    Where stderr is no terminal, some lines say the same: on stderr where ``show`` is True, else in the log of
    ``"simtrain"``, at the level INFO.

    Args:
        title: Words before the bar.
        total: Number of items.
        show: True: always, False: never, None: when it takes longer than ``delay``.
        delay: Seconds after which somebody waits.

    Example:
        >>> with Progress("encoding", total=2, show=False) as progress:
        ...     progress.advance(2)
    """

    def __init__(self, title: str, total: int, show: bool | None = None, delay: float = 1.0) -> None:
        self._title, self._total, self._show = title, total, show
        self._on_terminal = sys.stderr.isatty()
        self._delay = 0.0 if show else delay
        self._start = time.perf_counter()
        self._next = self._start + (self._delay if self._on_terminal or show else max(delay, LINE_SECONDS))
        self._done = self._told = 0
        self._bar: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._draw()
            self._bar.stop()

    def advance(self, count: int) -> None:
        """Say that ``count`` more items are done."""
        self._done = min(self._done + count, self._total)
        # Looking at the clock is all that most steps do.
        if self._show is False or time.perf_counter() < self._next:
            return
        if self._on_terminal:
            self._draw()
        else:
            self._tell()

    def _draw(self) -> None:
        if self._bar is None:
            if self._done == self._total and self._delay:
                return  # nobody waits any more
            self._bar = self._open()
        self._bar.update(self._bar.task_ids[0], completed=self._done, speed=self._speed())
        self._next = time.perf_counter() + REDRAW_SECONDS

    def _tell(self) -> None:
        if self._done * LINES // max(self._total, 1) == self._told * LINES // max(self._total, 1):
            return  # less than a tenth more than at the last line
        speed = self._speed()
        left = timedelta(seconds=round((self._total - self._done) / speed))
        line = f"{self._title}: {self._done:,} of {self._total:,}, {speed:,.0f} items/s, {left} left"
        if self._show:
            print(line, file=sys.stderr, flush=True)
        else:
            logger.info("%s", line)
        self._told, self._next = self._done, time.perf_counter() + LINE_SECONDS

    def _speed(self) -> float:
        return self._done / max(time.perf_counter() - self._start, 1e-9)

    def _open(self) -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        speed = TextColumn("{task.fields[speed]:,.0f} items/s")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), speed, TimeRemainingColumn())
        # Rich draws in a thread of its own, as often as this, whatever the steps do.
        bar = RichProgress(*columns, console=Console(stderr=True), refresh_per_second=1 / REDRAW_SECONDS)
        bar.add_task(self._title, total=self._total, completed=self._done, speed=0.0)
        bar.start()
        return bar


def track(
    steps: Iterable[T], total: int, description: str, show: bool | None = None, delay: float = 1.0, size: int = 1
) -> Iterator[T]:
    """Go through ``steps`` with a :class:`Progress` bar.

    Args:
        steps: What to go through.
        total: Number of items in all steps.
        description: Words before the bar.
        show: See :class:`Progress`.
        delay: See :class:`Progress`.
        size: Items a step; the last one may have fewer.

    Example:
        >>> list(track("ab", 2, "Encoding", show=False))
        ['a', 'b']
    """
    with Progress(description, total, show, delay) as progress:
        for step in steps:
            yield step
            progress.advance(size)
