"""Segments: some rows of a store, in files of their own.

A segment is ``segment-000007.npy`` (embeddings) and ``segment-000007.keys.npy`` (their keys); stores of another kind
may have more columns. Rows are added at the end until the segment is full. The checksums of its files cover the rows
that the manifest names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from simtrain.cache.column_files import (
    Array,
    Column,
    ColumnWriter,
    FileDamagedError,
    FileEntry,
    check_content,
    map_file,
)
from simtrain.cache.item_keys import KEY_BYTES

KEYS = Column(".keys.npy", "|u1", KEY_BYTES)
Columns = Sequence[Column]
# Files that this process has found whole: place, size, time of change and checksum.
_verified: set[tuple[int, int, int, int, str]] = set()


@dataclass(frozen=True)
class SegmentEntry:
    """What the manifest says of a segment: its name, and its files by their endings."""

    name: str
    files: Mapping[str, FileEntry]

    @property
    def rows(self) -> int:
        """Number of keys."""
        return self.files[KEYS.ending].rows

    def to_dict(self) -> dict[str, Any]:
        """The entry as JSON values."""
        files = {ending: {"rows": file.rows, "xxh3": file.xxh3} for ending, file in self.files.items()}
        return {"name": self.name, "rows": self.rows, "files": files}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SegmentEntry:
        """The entry from what :meth:`to_dict` gave."""
        return cls(values["name"], {ending: FileEntry(**file) for ending, file in values["files"].items()})


class Segment:
    """A segment as a process sees it: its keys checked, its other columns mapped and checked when they are needed.

    Args:
        folder: Folder of the store.
        entry: What the manifest says of it.
        columns: Its columns, the keys among them.
        start: Number of its first row in this process.

    Raises:
        FileDamagedError: A file is missing or too short, or the keys do not match their checksum.

    Attributes:
        arrays: The mapped columns, by their endings.
        is_whole: Whether all files have been found to match their checksums.
        is_damaged: Whether one of them has been found not to.
    """

    def __init__(self, folder: Path, entry: SegmentEntry, columns: Columns, start: int = 0) -> None:
        self.folder, self.entry, self.columns, self.start = folder, entry, columns, start
        self.arrays = {column.ending: self._map(column) for column in columns}
        self._check(KEYS)
        self.is_whole = all(self._place(column) in _verified for column in columns)
        self.is_damaged = False

    @property
    def end(self) -> int:
        """Number of the row after its last one."""
        return self.start + self.entry.rows

    @property
    def keys(self) -> UInt8[np.ndarray, "n 16"]:
        """Keys of its rows."""
        return self.arrays[KEYS.ending]

    def check(self) -> None:
        """Read all files once, at the speed of the disk or of the page cache; does nothing the second time.

        Raises:
            FileDamagedError: A file does not match its checksum.
        """
        for column in () if self.is_whole else self.columns:
            self._check(column)
        self.is_whole = True

    def _map(self, column: Column) -> Array:
        return map_file(self.path(column), column, self.entry.files[column.ending])

    def _check(self, column: Column) -> None:
        place = self._place(column)
        if place in _verified:
            return
        path, file = self.path(column), self.entry.files[column.ending]
        if place[2] < column.end(file.rows):  # reading a mapping beyond its file would end the process
            raise FileDamagedError(f"{path.name} has {place[2]:,} bytes instead of {column.end(file.rows):,}")
        check_content(path.name, self.arrays[column.ending], file)
        _verified.add(place)

    def _place(self, column: Column) -> tuple[int, int, int, int, str]:
        path = self.path(column)
        try:
            status = path.stat()
        except FileNotFoundError as error:
            raise FileDamagedError(f"{path.name} is missing") from error
        checksum = self.entry.files[column.ending].xxh3
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, checksum

    def path(self, column: Column) -> Path:
        """File of a column."""
        return self.folder / f"{self.entry.name}{column.ending}"


class SegmentWriter:
    """Writes rows to the files of one segment; they count once the manifest names them.

    Args:
        folder: Folder of the store.
        name: Name of the segment.
        columns: Its columns, the keys among them.
        safe: The segment as the manifest knows it, to go on with; None starts a new one.

    Raises:
        FileDamagedError: A file is not what ``safe`` says.
    """

    def __init__(self, folder: Path, name: str, columns: Columns, safe: SegmentEntry | None = None) -> None:
        self.name = name
        self._files: dict[str, ColumnWriter] = {}
        self._keys: list[UInt8[np.ndarray, "n 16"]] = []
        try:
            for column in columns:
                file = None if safe is None else safe.files[column.ending]
                self._files[column.ending] = ColumnWriter(folder / f"{name}{column.ending}", column, file)
        except BaseException:
            self.abort()
            raise

    @property
    def rows(self) -> int:
        """Number of keys written, the safe ones included."""
        return self._files[KEYS.ending].rows

    def write(self, keys: UInt8[np.ndarray, "n 16"], arrays: Mapping[str, Array]) -> None:
        """Write some rows: their keys, and the other columns by their endings."""
        for ending, array in {**arrays, KEYS.ending: keys}.items():
            self._files[ending].write(array)
        self._keys.append(keys.copy())

    def sync(self) -> SegmentEntry:
        """Wait until all that was written is on the disk."""
        return SegmentEntry(self.name, {ending: file.sync() for ending, file in self._files.items()})

    def keep(self) -> Iterator[UInt8[np.ndarray, "n 16"]]:
        """Say that the manifest names what was written; gives the keys that were new to it."""
        for file in self._files.values():
            file.keep()
        new, self._keys = self._keys, []
        return iter(new)

    @property
    def is_safe(self) -> bool:
        """Whether all rows are in the manifest."""
        return not self._keys

    def close(self) -> None:
        """Close the files; all rows are safe."""
        for file in self._files.values():
            file.close()

    def abort(self) -> None:
        """Take back what is not safe."""
        for file in self._files.values():
            file.abort()
