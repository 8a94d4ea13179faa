"""Files of segments: npy arrays that grow at their end, and whose first rows never change once they are safe.

The npy headers have a fixed length, so that an array can be written before its number of rows is known.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import xxhash
from jaxtyping import Shaped

Array = Shaped[np.ndarray, "rows dim"]
HEADER_BYTES = 128
_READ_BYTES = 1 << 20
_SHAPE = re.compile(rb"'shape': \((\d+), ")


class FileDamagedError(Exception):
    """A file is missing, is too short, has another header, or does not match its checksum."""


@dataclass(frozen=True)
class Column:
    """One file of each segment.

    Attributes:
        ending: What the file's name ends in.
        dtype: Type of its numbers, in numpy's words.
        dim: Numbers a row.
    """

    ending: str
    dtype: str
    dim: int

    @property
    def row_bytes(self) -> int:
        """Bytes a row."""
        return np.dtype(self.dtype).itemsize * self.dim

    def end(self, rows: int) -> int:
        """Place in the file where ``rows`` rows end."""
        return HEADER_BYTES + rows * self.row_bytes


@dataclass(frozen=True)
class FileEntry:
    """What the manifest says of a file: its number of rows, and the checksum of their bytes."""

    rows: int
    xxh3: str


def npy_header(column: Column, rows: int) -> bytes:
    """Header of an npy file (format 1.0), always 128 bytes long.

    Reference:
        ``numpy.lib.format``, format version 1.0.

    Example:
        >>> len(npy_header(Column(".npy", "<f4", 2), rows=3))
        128
    """
    words = f"{{'descr': {column.dtype!r}, 'fortran_order': False, 'shape': ({rows}, {column.dim}), }}"
    start = b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little")
    return start + words.encode().ljust(HEADER_BYTES - 11) + b"\n"


class ColumnWriter:
    """Adds rows to a file, and can go back to what was safe.

    Args:
        path: The file.
        column: What it holds.
        safe: The rows that it has already; None makes a new file. What stands behind them, left by a killed process,
            is thrown away.

    Raises:
        FileDamagedError: The file is not what ``safe`` says.
    """

    def __init__(self, path: Path, column: Column, safe: FileEntry | None = None) -> None:
        self.path, self.column = path, column
        self.rows = self._safe_rows = 0 if safe is None else safe.rows
        self._hasher = xxhash.xxh3_128()
        # "x": a file that another process may have mapped is never written anew.
        self._file: BinaryIO = path.open("x+b" if safe is None else "r+b")
        if safe is None:
            self._file.write(npy_header(column, 0))
        else:
            self._go_on(safe)

    def write(self, rows: Array) -> None:
        """Write some rows."""
        content = np.ascontiguousarray(rows, dtype=self.column.dtype).data
        self._file.write(content)
        self._hasher.update(content)
        self.rows += len(rows)

    def sync(self) -> FileEntry:
        """Wait until all rows are on the disk."""
        self._file.seek(0)
        self._file.write(npy_header(self.column, self.rows))
        self._file.seek(self.column.end(self.rows))
        self._file.flush()
        os.fsync(self._file.fileno())
        return FileEntry(self.rows, self._hasher.hexdigest())

    def keep(self) -> None:
        """Say that the rows of the last :meth:`sync` are in the manifest."""
        self._safe_rows = self.rows

    def close(self) -> None:
        """Close the file after :meth:`sync`."""
        self._file.close()

    def abort(self) -> None:
        """Close the file and take back what is not safe."""
        with contextlib.suppress(OSError):  # the disk is full: what was buffered is to be thrown away all the same
            self._file.close()
        if not self._safe_rows:
            self.path.unlink(missing_ok=True)
            return
        with contextlib.suppress(OSError), self.path.open("r+b") as file:
            file.truncate(self.column.end(self._safe_rows))
            file.write(npy_header(self.column, self._safe_rows))

    def _go_on(self, safe: FileEntry) -> None:
        try:
            self._file.truncate(max(self.column.end(safe.rows), HEADER_BYTES))
            self._file.seek(HEADER_BYTES)
            while chunk := self._file.read(_READ_BYTES):
                self._hasher.update(chunk)
            if self._hasher.hexdigest() != safe.xxh3:
                raise FileDamagedError(f"{self.path.name} does not match its checksum")
        except BaseException:
            self._file.close()
            raise


def map_file(path: Path, column: Column, entry: FileEntry) -> Array:
    """Map a file into memory, if its header and length are right; its content is not read.

    Raises:
        FileDamagedError: The file is missing, too short, or has another header.
    """
    try:
        with path.open("rb") as file:
            size, header = os.fstat(file.fileno()).st_size, file.read(HEADER_BYTES)
    except FileNotFoundError as error:
        # Other faults, of permissions or open files, say nothing of the content: it must not be thrown away for them.
        raise FileDamagedError(f"{path.name} is missing") from error
    end = column.end(entry.rows)
    if size < end:
        raise FileDamagedError(f"{path.name} has {size:,} bytes instead of {end:,}")
    check_header(path.name, header, column, entry.rows, size)
    # torch keeps no file open for a mapping, as numpy does: a store may have more segments than a process open files.
    mapped = torch.from_file(str(path), shared=False, size=end, dtype=torch.uint8)
    array: Array = mapped.numpy()[HEADER_BYTES:].view(column.dtype).reshape(entry.rows, column.dim)
    return array


def check_header(name: str, header: bytes, column: Column, rows: int, size: int) -> None:
    """Raise FileDamagedError unless a header fits; a killed process may have left one that counts rows not yet safe."""
    found = _SHAPE.search(header)
    counted = int(found[1]) if found else -1
    if header != npy_header(column, counted) or counted < rows or size < column.end(counted):
        raise FileDamagedError(f"{name} has a damaged header")


def check_content(name: str, content: Array, entry: FileEntry) -> None:
    """Raise FileDamagedError unless rows match their checksum."""
    hasher = xxhash.xxh3_128()
    flat = content.reshape(-1).view(np.uint8)
    for start in range(0, len(flat), _READ_BYTES):
        hasher.update(flat[start : start + _READ_BYTES].data)
    if hasher.hexdigest() != entry.xxh3:
        raise FileDamagedError(f"{name} does not match its checksum")
