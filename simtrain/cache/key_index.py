"""From keys to row numbers, for many keys at once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64, UInt8, UInt64


class KeyIndex:
    """Row number of each key, found by binary search in sorted arrays; 24 bytes a key, no Python object for any.

    Example:
        >>> index = KeyIndex()
        >>> index.extend(np.eye(3, 16, dtype=np.uint8))
        >>> index.lookup(np.eye(16, 16, dtype=np.uint8)[[2, 0, 5]]).tolist()
        [2, 0, -1]
    """

    def __init__(self) -> None:
        self._next = 0
        self._pending_count = 0
        self._high = np.empty(0, dtype=np.uint64)
        self._low = np.empty(0, dtype=np.uint64)
        self._rows = np.empty(0, dtype=np.int64)
        self._longest_run = 1
        self._pending: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self._rows) + self._pending_count

    def extend(self, keys: UInt8[np.ndarray, "n 16"]) -> None:
        """Give the next row numbers to ``keys``."""
        self._pending.append(keys.copy())
        self._pending_count += len(keys)
        self._next += len(keys)

    def forget(self, start: int, end: int) -> None:
        """Take the rows from ``start`` to before ``end`` out; the others keep their numbers."""
        if self._pending:
            self._merge()
        kept = (self._rows < start) | (self._rows >= end)
        self._high, self._low, self._rows = self._high[kept], self._low[kept], self._rows[kept]
        self._longest_run = longest_run(self._high)

    def lookup(self, keys: UInt8[np.ndarray, "n 16"]) -> Int64[np.ndarray, " n"]:
        """Row number of each key, −1 for keys that are not there; of two rows with one key, the first."""
        if self._pending:
            self._merge()
        rows = np.full(len(keys), -1, dtype=np.int64)
        if not len(self._high):
            return rows
        high, low = halves(keys)
        at = np.searchsorted(self._high, high)
        # Keys that share their first half stand side by side: look at as many places as the longest such run has.
        for step in range(self._longest_run):
            place = np.minimum(at + step, len(self._high) - 1)
            found = (rows < 0) & (self._high[place] == high) & (self._low[place] == low)
            rows[found] = self._rows[place[found]]
        return rows

    def _merge(self) -> None:
        high, low = halves(np.concatenate(self._pending))
        self._pending, self._pending_count = [], 0
        order = np.argsort(high, kind="stable")
        high, low, rows = high[order], low[order], order + (self._next - len(high))
        if len(self._high):
            # A stable sort finds the two sorted stretches and merges them: adding a little to much stays cheap.
            order = np.argsort(np.concatenate([self._high, high]), kind="stable")
            high = np.concatenate([self._high, high])[order]
            low, rows = np.concatenate([self._low, low])[order], np.concatenate([self._rows, rows])[order]
        self._high, self._low, self._rows = high, low, rows
        self._longest_run = longest_run(high)


def halves(keys: UInt8[np.ndarray, "n 16"]) -> tuple[UInt64[np.ndarray, " n"], UInt64[np.ndarray, " n"]]:
    """Both halves of each key as numbers.

    Example:
        >>> halves(np.zeros((1, 16), dtype=np.uint8))[0]
        array([0], dtype=uint64)
    """
    pairs = np.ascontiguousarray(keys).view(np.uint64)
    return pairs[:, 0], pairs[:, 1]


def longest_run(sorted_values: UInt64[np.ndarray, " n"]) -> int:
    """Length of the longest stretch of equal values.

    Example:
        >>> longest_run(np.array([1, 2, 2, 3], dtype=np.uint64))
        2
    """
    starts = np.flatnonzero(np.diff(sorted_values, prepend=sorted_values[:1] + np.uint64(1)))
    return int(np.diff(starts, append=len(sorted_values)).max(initial=1))


def first_positions(keys: UInt8[np.ndarray, "n 16"]) -> Int64[np.ndarray, " unique"]:
    """Position where each distinct key is first seen, in ascending order.

    Example:
        >>> first_positions(np.eye(16, dtype=np.uint8)[[4, 1, 4, 1, 0]]).tolist()
        [0, 1, 4]
    """
    high, low = halves(keys)
    order = np.lexsort((low, high))  # stable: of equal keys, the first position comes first
    high, low = high[order], low[order]
    is_new = np.ones(len(keys), dtype=np.bool_)
    is_new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    return np.sort(order[is_new]).astype(np.int64)
