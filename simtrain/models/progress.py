"""A progress bar that shows up only where somebody waits for it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def track(
    steps: Iterable[T], total: int, description: str, show: bool | None = None, delay: float = 1.0
) -> Iterator[T]:
    """Go through ``steps`` with a progress bar on stderr.

    Args:
        steps: What to go through.
        total: Number of steps.
        description: Words before the bar.
        show: True: always, False: never, None: when it takes longer than ``delay`` and stderr is a terminal.
        delay: Seconds after which somebody waits.

    Example:
        >>> list(track("ab", 2, "Encoding", show=False))
        ['a', 'b']
    """
    if show is False or (show is None and not sys.stderr.isatty()):
        yield from steps
        return
    from rich.console import Console
    from rich.progress import Progress

    started = time.monotonic()
    with Progress(console=Console(stderr=True), disable=True) as progress:
        task = progress.add_task(description, total=total)
        for done, step in enumerate(steps):
            if progress.disable and (show or time.monotonic() - started > delay):
                progress.disable = False
                progress.start()
            progress.update(task, completed=done)
            yield step
        progress.update(task, completed=total)
