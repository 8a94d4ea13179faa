"""A folder of segments: shared by processes and runs, found whole or mended after whatever happened to a writer."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import Int64, UInt8

from simtrain.cache.column_files import Array, FileDamagedError
from simtrain.cache.key_index import KeyIndex
from simtrain.cache.manifest import (
    MANIFEST_FILE,
    Manifest,
    ManifestDamagedError,
    note_use,
    read_manifest,
    write_manifest,
)
from simtrain.cache.segments import Segment, SegmentEntry, SegmentWriter
from simtrain.errors import CacheError

logger = logging.getLogger("simtrain")

LOCK_FILE = ".lock"
SEGMENT_ROWS = 32_768
SEGMENT_SECONDS = 30.0
SEGMENT_FILE = re.compile(r"segment-(\d+)(\.\w+)*\.npy")


class SegmentFolder:
    """Rows of any columns under keys, in the segments of a folder.

    One process writes at a time, others wait for it and then find its rows. What is written is made safe every
    ``segment_seconds`` and when a segment is full, so that a killed process loses no more than that. A file that is
    missing or too short is found when the folder is opened, other damage before a row of that segment is used; its
    rows are then forgotten, with a logged message, and its files removed at the next writing.

    Args:
        folder: Where; made if it does not exist.
        manifest: What the folder holds or is to hold, without segments.
        segment_rows: Rows of a full segment.
        segment_seconds: Seconds of writing after which rows are made safe.

    Attributes:
        index: Keys → rows.
        segments: The segments in the order of their rows.

    Raises:
        CacheError: The folder cannot be used, or holds something else.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        segment_rows: int = SEGMENT_ROWS,
        segment_seconds: float = SEGMENT_SECONDS,
    ) -> None:
        self.folder = folder
        self.segment_rows, self.segment_seconds = segment_rows, segment_seconds
        self.index = KeyIndex()
        self.segments: list[Segment] = []
        self.starts = np.zeros(1, dtype=np.int64)
        self.unchecked = 0
        self._opened: dict[str, Segment] = {}
        self._damaged: list[SegmentEntry] = []
        self._tells_manifest = False
        self._manifest = manifest
        self._writer: SegmentWriter | None = None
        self._is_writing = False
        self._safe_at = 0.0
        self._make_folder()
        self._refresh()
        note_use(folder)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def n_rows(self) -> int:
        """Number of rows that were given out; rows of damaged segments keep their numbers."""
        return int(self.starts[-1])

    def lookup(self, keys: UInt8[np.ndarray, "n 16"]) -> Int64[np.ndarray, " n"]:
        """Row of each key, −1 where it is missing, damaged, or still on its way to the disk.

        Reads each segment that has one of the keys, once in a process, to see whether it is whole.
        """
        rows = self.index.lookup(keys)
        if self.unchecked and not self.check(np.unique(np.searchsorted(self.starts, rows, side="right") - 1)):
            return self.index.lookup(keys)
        return rows

    def check(self, numbers: Int64[np.ndarray, " n"]) -> bool:
        """Whether these segments are whole; the rows of those that are not are forgotten."""
        suspects = [self.segments[number] for number in numbers.tolist() if number >= 0]
        # All are looked at, so that one message each tells the whole damage.
        damaged = [segment for segment in suspects if not (segment.is_whole or self._is_whole(segment))]
        return not damaged

    def append(self, keys: UInt8[np.ndarray, "n 16"], arrays: Mapping[str, Array]) -> None:
        """Add rows under keys that are not there yet, within :meth:`writing`.

        Args:
            keys: Their keys.
            arrays: The columns' rows, by the columns' endings.

        Raises:
            CacheError: The disk is full or cannot be written to; what was safe before stays usable.
        """
        with self._clear_faults():
            writer = self._open_writer()
            writer.write(keys, arrays)
        if writer.rows >= self.segment_rows or time.monotonic() - self._safe_at > self.segment_seconds:
            self._commit()

    @property
    def room(self) -> int:
        """Rows until the segment at hand is full, within :meth:`writing`."""
        with self._clear_faults():
            return self.segment_rows - self._open_writer().rows

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the folder's lock; see what other processes have added; at the end, make what was appended safe."""
        with self._locked():
            self._refresh()
            with self._clear_faults():
                self._clean()
            self._is_writing, self._safe_at = True, time.monotonic()
            try:
                yield
            finally:
                # Also after an error or Ctrl-C: what has been encoded is kept.
                self._is_writing = False
                self._commit()
                self._close_writer()

    @property
    def is_writing(self) -> bool:
        """Whether this process holds the lock."""
        return self._is_writing

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(self._unwritable(error)) from error

    def _unwritable(self, error: Exception) -> str:
        reason = error.strerror if isinstance(error, OSError) else error
        return (
            f"cannot write the cache folder {self.folder}: {reason}; make room or choose another save_dir "
            f"({len(self):,} embeddings stored before stay usable)"
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(self.folder / LOCK_FILE)
        try:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                logger.info("cache %s: another process fills it; waiting for it", self.folder)
                lock.acquire()
        except OSError as error:
            raise CacheError(self._unwritable(error)) from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _clear_faults(self) -> Iterator[None]:
        try:
            yield
        except (OSError, FileDamagedError) as error:
            self._abort()
            raise CacheError(self._unwritable(error)) from error

    def _refresh(self) -> None:
        """Open the segments that are new in the manifest; leave out those that are damaged."""
        manifest = self._read_manifest()
        entries = [entry for entry in manifest.segments if entry not in self._damaged]
        whole = [entry for entry in entries if self._knows(entry) or self._open(entry)]
        self._manifest = manifest.with_segments(whole)

    def _read_manifest(self) -> Manifest:
        try:
            return read_manifest(self.folder, self._manifest)
        except ManifestDamagedError:
            if not self._tells_manifest:
                text = "cache %s: %s is damaged; all embeddings that it named are computed again"
                logger.warning(text, self.folder, MANIFEST_FILE)
            self._tells_manifest = True
            return self._manifest.with_segments(())

    def _knows(self, entry: SegmentEntry) -> bool:
        known = self._opened.get(entry.name)
        return known is not None and known.entry == entry

    def _open(self, entry: SegmentEntry) -> bool:
        try:
            # A segment that another process has added to is opened anew: of two rows of one key the first is used.
            self._attach(Segment(self.folder, entry, self._manifest.all_columns, self.n_rows))
        except FileDamagedError as error:
            self._tell_damage(error, entry)
            return False
        except OSError as error:
            raise CacheError(f"cannot read {entry.name} of the cache in {self.folder}: {error.strerror}") from error
        return True

    def _is_whole(self, segment: Segment) -> bool:
        if segment.is_damaged:
            return False
        self.unchecked -= 1
        try:
            segment.check()
        except FileDamagedError as error:
            segment.is_damaged = True
            self._tell_damage(error, segment.entry)
            self._forget(segment)
        return segment.is_whole

    def _tell_damage(self, error: FileDamagedError, entry: SegmentEntry) -> None:
        logger.warning("cache %s: %s; %d embeddings are computed again", self.folder, error, entry.rows)
        self._damaged.append(entry)

    def _forget(self, segment: Segment) -> None:
        self.index.forget(segment.start, segment.end)
        self._opened.pop(segment.entry.name, None)
        others = [entry for entry in self._manifest.segments if entry != segment.entry]
        self._manifest = self._manifest.with_segments(others)

    def _attach(self, segment: Segment) -> None:
        self._opened[segment.entry.name] = segment
        self.segments.append(segment)
        self.starts = np.append(self.starts, segment.end)
        self.unchecked += not segment.is_whole
        self.index.extend(segment.keys)

    def _clean(self) -> None:
        """Remove damaged segments and what killed processes left. Needs the lock."""
        names = {entry.name for entry in self._manifest.segments}
        leftovers = [path for path in self._files() if path.name.split(".")[0] not in names]
        if leftovers:
            # First the manifest: it must never name a file that is gone.
            write_manifest(self.folder, self._manifest)
        for path in leftovers:
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if SEGMENT_FILE.fullmatch(path.name)]

    def _open_writer(self) -> SegmentWriter:
        if self._writer is None:
            columns, last = self._manifest.all_columns, self._last_with_room()
            if last is not None:
                self._writer = SegmentWriter(self.folder, last.entry.name, columns, last.entry)
            else:
                self._writer = SegmentWriter(self.folder, self._new_name(), columns)
        return self._writer

    def _new_name(self) -> str:
        entries = [*self._manifest.segments, *self._damaged]
        numbers = [int(name.split("-")[1]) for name in {*self._opened, *(entry.name for entry in entries)}]
        return f"segment-{max(numbers, default=-1) + 1:06d}"

    def _last_with_room(self) -> Segment | None:
        """The last segment, if rows can be added to it: small fillings must not leave a file each."""
        last = self.segments[-1] if self.segments else None
        if last is None or last.entry.rows >= self.segment_rows or last.entry not in self._manifest.segments:
            return None
        return last if last.is_whole or self._is_whole(last) else None

    def _commit(self) -> None:
        """Make what was written a part of the store, once it has been read back."""
        writer, self._safe_at = self._writer, time.monotonic()
        if writer is None or writer.is_safe:
            return
        with self._clear_faults():
            entry = writer.sync()
            segment = Segment(self.folder, entry, self._manifest.all_columns, self.n_rows)
            segment.check()
            others = [other for other in self._manifest.segments if other.name != entry.name]
            manifest = self._manifest.with_segments([*others, entry])
            write_manifest(self.folder, manifest)
        self._manifest = manifest
        self._attach_written(segment, writer)
        if writer.rows >= self.segment_rows:
            self._close_writer()

    def _attach_written(self, segment: Segment, writer: SegmentWriter) -> None:
        before = self._opened.get(writer.name)
        for keys in writer.keep():
            self.index.extend(keys)
        if before is not None:
            segment.start = before.start
            self.segments[-1] = segment
            self.starts = self.starts[:-1]
        else:
            self.segments.append(segment)
        self.starts = np.append(self.starts, segment.end)
        self._opened[writer.name] = segment

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _abort(self) -> None:
        if self._writer is not None:
            self._writer.abort()
            self._writer = None
