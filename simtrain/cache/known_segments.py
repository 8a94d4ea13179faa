"""What a process knows of the segments of a folder: which there are, what rows they have, whether they are whole."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from simtrain.cache.column_files import FileDamagedError
from simtrain.cache.key_index import KeyIndex
from simtrain.cache.segments import Columns, Segment, SegmentEntry
from simtrain.errors import CacheError

logger = logging.getLogger("simtrain")


class KnownSegments:
    """The segments that a process has opened. Their rows are numbered as they come, and keep their numbers.

    A file that is missing or too short is found when its segment is opened, other damage before a row of it is used;
    the rows of a damaged segment are forgotten, with a logged message.

    Args:
        folder: Folder of the segments.
        columns: Files of each segment.

    Attributes:
        index: Keys → rows.
        segments: The segments in the order of their rows.
        starts: Number of each one's first row, and, last, of the next one's.
        damaged: What the manifest says of those that have been found damaged.
    """

    def __init__(self, folder: Path, columns: Columns) -> None:
        self.folder, self.columns = folder, columns
        self.index = KeyIndex()
        self.segments: list[Segment] = []
        self.starts = np.zeros(1, dtype=np.int64)
        self.damaged: list[SegmentEntry] = []
        self._by_name: dict[str, Segment] = {}
        self._n_unchecked = 0

    @property
    def n_rows(self) -> int:
        """Number of rows that were given out, those of damaged segments too."""
        return int(self.starts[-1])

    @property
    def names(self) -> set[str]:
        """Names that are taken."""
        return {*self._by_name, *(entry.name for entry in self.damaged)}

    def lookup(self, keys: UInt8[np.ndarray, "n 16"]) -> Int64[np.ndarray, " n"]:
        """Row of each key, −1 where it is missing or damaged.

        Reads each segment that has one of the keys, once in a process, to see whether it is whole.
        """
        rows = self.index.lookup(keys)
        if self._n_unchecked and not self.check(np.unique(np.searchsorted(self.starts, rows, side="right") - 1)):
            return self.index.lookup(keys)
        return rows

    def check(self, numbers: Int64[np.ndarray, " n"]) -> bool:
        """Whether these segments are whole; the rows of those that are not are forgotten."""
        suspects = [self.segments[number] for number in numbers.tolist() if number >= 0]
        # All are looked at, so that one message each tells the whole damage.
        damaged = [segment for segment in suspects if not self.is_whole(segment)]
        return not damaged

    def is_whole(self, segment: Segment) -> bool:
        """Whether a segment is whole; it is read if that is not known yet."""
        if segment.is_whole or segment.is_damaged:
            return segment.is_whole
        self._n_unchecked -= 1
        try:
            segment.check()
        except FileDamagedError as error:
            segment.is_damaged = True
            self.index.forget(segment.start, segment.end)
            self._by_name.pop(segment.entry.name, None)
            self._tell_damage(error, segment.entry)
        return segment.is_whole

    def opened(self, entries: Iterable[SegmentEntry]) -> list[SegmentEntry]:
        """Open the segments that are new among those of a manifest.

        Returns:
            Those that are not known to be damaged.
        """
        left = [entry for entry in entries if entry not in self.damaged]
        return [entry for entry in left if self._is_open(entry) or self._open(entry)]

    def written(self, segment: Segment, keys: Iterable[UInt8[np.ndarray, "n 16"]]) -> None:
        """Take in a segment that this process has written, or added rows to at its end.

        Args:
            segment: The segment.
            keys: Keys of the new rows.
        """
        before = self._by_name.get(segment.entry.name)
        for part in keys:
            self.index.extend(part)
        if before is not None:
            segment.start = before.start
            self.segments[-1] = segment
            self.starts = self.starts[:-1]
        else:
            self.segments.append(segment)
        self.starts = np.append(self.starts, segment.end)
        self._by_name[segment.entry.name] = segment

    def _is_open(self, entry: SegmentEntry) -> bool:
        known = self._by_name.get(entry.name)
        return known is not None and known.entry == entry

    def _open(self, entry: SegmentEntry) -> bool:
        try:
            # A segment that another process has added to is opened anew: of two rows of one key the first is used.
            segment = Segment(self.folder, entry, self.columns, self.n_rows)
        except FileDamagedError as error:
            self._tell_damage(error, entry)
            return False
        except OSError as error:
            raise CacheError(f"cannot read {entry.name} of the cache in {self.folder}: {error.strerror}") from error
        self._by_name[entry.name] = segment
        self.segments.append(segment)
        self.starts = np.append(self.starts, segment.end)
        self._n_unchecked += not segment.is_whole
        self.index.extend(segment.keys)
        return True

    def _tell_damage(self, error: FileDamagedError, entry: SegmentEntry) -> None:
        logger.warning("cache %s: %s; %d embeddings are computed again", self.folder, error, entry.rows)
        self.damaged.append(entry)
