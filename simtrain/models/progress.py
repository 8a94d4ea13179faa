"""A progress bar that shows up only where somebody waits for it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


class Progress:
    """A bar on stderr with items per second and the time left.

    Args:
        title: Words before the bar.
        total: Number of items.
        show: True: always, False: never, None: when it takes longer than ``delay`` and stderr is a terminal.
        delay: Seconds after which somebody waits.

    Example:
        >>> with Progress("encoding", total=2, show=False) as progress:
        ...     progress.advance(2)
    """

    def __init__(self, title: str, total: int, show: bool | None = None, delay: float = 1.0) -> None:
        self._title, self._total = title, total
        self._shown = sys.stderr.isatty() if show is None else show
        self._delay = 0.0 if show else delay
        self._start = time.perf_counter()
        self._done = 0
        self._bar: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, count: int) -> None:
        """Say that ``count`` more items are done."""
        self._done = min(self._done + count, self._total)
        seconds = time.perf_counter() - self._start
        if (
            self._bar is None
            and self._shown
            and seconds >= self._delay
            and (self._done < self._total or not self._delay)
        ):
            self._bar = self._open()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done, speed=self._done / max(seconds, 1e-9))

    def _open(self) -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        speed = TextColumn("{task.fields[speed]:,.0f} items/s")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), speed, TimeRemainingColumn())
        bar = RichProgress(*columns, console=Console(stderr=True))
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
