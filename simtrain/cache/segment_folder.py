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
from jaxtyping import UInt8

from simtrain.cache.column_files import Array, FileDamagedError
from simtrain.cache.known_segments import KnownSegments
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
    ``segment_seconds`` and when a segment is full, so that a killed process loses no more than that. Files of damaged
    segments are removed at the next writing.

    Args:
        folder: Where; made if it does not exist.
        manifest: What the folder holds or is to hold, without segments.
        segment_rows: Rows of a full segment.
        segment_seconds: Seconds of writing after which rows are made safe.

    Attributes:
        known: The segments as this process knows them.

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
        self.known = KnownSegments(folder, manifest.all_columns)
        self._manifest = manifest
        self._tells_manifest = False
        self._writer: SegmentWriter | None = None
        self._is_writing = False
        self._safe_at = 0.0
        self._make_folder()
        self._refresh()
        note_use(folder)

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
            f"({len(self.known.index):,} embeddings stored before stay usable)"
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

    @property
    def _entries(self) -> list[SegmentEntry]:
        """What the manifest is to name: its segments, without those that have been found damaged since."""
        return [entry for entry in self._manifest.segments if entry not in self.known.damaged]

    def _refresh(self) -> None:
        """Open the segments that are new in the manifest; leave out those that are damaged."""
        manifest = self._read_manifest()
        self._manifest = manifest.with_segments(self.known.opened(manifest.segments))

    def _read_manifest(self) -> Manifest:
        try:
            return read_manifest(self.folder, self._manifest)
        except ManifestDamagedError:
            if not self._tells_manifest:
                text = "cache %s: %s is damaged; all embeddings that it named are computed again"
                logger.warning(text, self.folder, MANIFEST_FILE)
            self._tells_manifest = True
            return self._manifest.with_segments(())

    def _clean(self) -> None:
        """Remove damaged segments and what killed processes left. Needs the lock."""
        names = {entry.name for entry in self._entries}
        leftovers = [path for path in self._files() if path.name.split(".")[0] not in names]
        if leftovers:
            # First the manifest: it must never name a file that is gone.
            write_manifest(self.folder, self._manifest.with_segments(self._entries))
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
        numbers = [int(name.split("-")[1]) for name in self.known.names]
        return f"segment-{max(numbers, default=-1) + 1:06d}"

    def _last_with_room(self) -> Segment | None:
        """The last segment, if rows can be added to it: small fillings must not leave a file each."""
        last = self.known.segments[-1] if self.known.segments else None
        if last is None or last.entry.rows >= self.segment_rows or last.entry not in self._entries:
            return None
        return last if self.known.is_whole(last) else None

    def _commit(self) -> None:
        """Make what was written a part of the store, once it has been read back."""
        writer, self._safe_at = self._writer, time.monotonic()
        if writer is None or writer.is_safe:
            return
        with self._clear_faults():
            entry = writer.sync()
            segment = Segment(self.folder, entry, self._manifest.all_columns, self.known.n_rows)
            segment.check()
            others = [other for other in self._entries if other.name != entry.name]
            manifest = self._manifest.with_segments([*others, entry])
            write_manifest(self.folder, manifest)
        self._manifest = manifest
        self.known.written(segment, writer.keep())
        if writer.rows >= self.segment_rows:
            self._close_writer()

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _abort(self) -> None:
        if self._writer is not None:
            self._writer.abort()
            self._writer = None
