"""The same work for many inputs, on all processors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")

# Beyond that, threads wait for the interpreter more than they work.
MOST_THREADS = 8


def in_threads(
    work: Callable[[T], object],
    inputs: Sequence[T],
    done: Callable[[], object] = lambda: None,
    most: int = MOST_THREADS,
) -> None:
    """Call ``work`` for each input, several at a time; each call computes with its share of torch's threads.

    Work of many small operations keeps all processors busy this way, where one operation after the other would not.

    Args:
        work: What to do. What it writes to must be its own, or locked.
        inputs: What to do it for. They are begun in this order.
        done: Called in this thread for each that is done.
        most: Threads at most.

    Example:
        >>> done = []
        >>> in_threads(done.append, [1, 2, 3])
        >>> sorted(done)
        [1, 2, 3]
    """
    available = torch.get_num_threads()
    threads = min(available, most, len(inputs))
    if threads <= 1:
        for one in inputs:
            work(one)
            done()
        return
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(available // threads,))
    try:
        for _ in pool.map(work, inputs):
            done()
    finally:
        pool.shutdown(cancel_futures=True)
        # The number is each thread's own, but threads begun later take the last one that was set.
        torch.set_num_threads(available)
