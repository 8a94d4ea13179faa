"""Segments: pairs of npy files that are written once, checked once and then mapped into memory.

A segment is ``segment-000007.npy`` (embeddings) and ``segment-000007.keys.npy`` (their keys). The npy headers
have a fixed length, so that a segment can be streamed to its file before its number of rows is known.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import xxhash
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from simtrain.cache.item_keys import KEY_BYTES
from simtrain.cache.storage_types import FILE_TYPES, to_file_array

FileType: TypeAlias = "np.dtype[Any]"
HEADER_BYTES = 128
_READ_BYTES = 1 << 20
_KEY_TYPE = np.dtype("|u1")
# Files that this process has found whole: place, size, time of change and checksum.
_verified: set[tuple[int, int, int, int, str]] = set()


@dataclass(frozen=True)
class SegmentEntry:
    """What the manifest says of a segment: its name, rows, and the checksums of both files' contents."""

    name: str
    rows: int
    vectors_xxh3: str
    keys_xxh3: str

    def to_dict(self) -> dict[str, Any]:
        """The entry as JSON values."""
        return asdict(self)


class SegmentDamagedError(Exception):
    """A segment's file is missing, has another size or header, or does not match its checksum."""


def vectors_path(folder: Path, name: str) -> Path:
    """File of a segment's embeddings."""
    return folder / f"{name}.npy"


def keys_path(folder: Path, name: str) -> Path:
    """File of a segment's keys."""
    return folder / f"{name}.keys.npy"


def npy_header(dtype: FileType, rows: int, dim: int) -> bytes:
    """Header of an npy file (format 1.0), always 128 bytes long.

    Reference:
        ``numpy.lib.format``, format version 1.0.

    Example:
        >>> len(npy_header(np.dtype("<f4"), 3, 2))
        128
    """
    words = f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': ({rows}, {dim}), }}"
    start = b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little")
    return start + words.ljust(HEADER_BYTES - 11).encode() + b"\n"


class SegmentWriter:
    """Streams one segment to its files; it is no part of a store until a manifest names it.

    Args:
        folder: Folder of the store.
        name: Name of the segment; its files must not exist.
        dim: Number of dimensions.
        dtype: Type of the stored numbers.
    """

    def __init__(self, folder: Path, name: str, dim: int, dtype: str) -> None:
        self.folder, self.name, self.dim, self.dtype = folder, name, dim, dtype
        self.rows = 0
        self._keys: list[UInt8[np.ndarray, "n 16"]] = []
        self._hasher = xxhash.xxh3_128()
        # "x": a file that another process may have mapped is never written to.
        self._file: BinaryIO = vectors_path(folder, name).open("xb")
        self._file.write(npy_header(FILE_TYPES[dtype], 0, dim))

    @property
    def keys(self) -> UInt8[np.ndarray, "n 16"]:
        """Keys written so far."""
        return np.concatenate(self._keys) if self._keys else np.empty((0, KEY_BYTES), dtype=np.uint8)

    def write(self, keys: UInt8[np.ndarray, "n 16"], vectors: Float[Tensor, "n dim"]) -> None:
        """Write some rows."""
        content = to_file_array(vectors, self.dtype).data
        self._file.write(content)
        self._hasher.update(content)
        self._keys.append(keys.copy())
        self.rows += len(keys)

    def finish(self) -> SegmentEntry:
        """Complete both files and wait until they are on the disk."""
        self._file.seek(0)
        self._file.write(npy_header(FILE_TYPES[self.dtype], self.rows, self.dim))
        sync_and_close(self._file)
        keys = np.ascontiguousarray(self.keys)
        file = keys_path(self.folder, self.name).open("xb")
        file.write(npy_header(_KEY_TYPE, self.rows, KEY_BYTES))
        file.write(keys.data)
        sync_and_close(file)
        return SegmentEntry(self.name, self.rows, self._hasher.hexdigest(), xxhash.xxh3_128_hexdigest(keys.data))

    def abort(self) -> None:
        """Remove what was written."""
        with contextlib.suppress(OSError):  # the disk is full: what was buffered is to be thrown away all the same
            self._file.close()
        vectors_path(self.folder, self.name).unlink(missing_ok=True)
        keys_path(self.folder, self.name).unlink(missing_ok=True)


def sync_and_close(file: BinaryIO) -> None:
    """Close a file after its content has reached the disk."""
    file.flush()
    os.fsync(file.fileno())
    file.close()


def open_segment(
    folder: Path, entry: SegmentEntry, dim: int, dtype: str
) -> tuple[UInt8[np.ndarray, "n 16"], Shaped[np.ndarray, "n dim"]]:
    """Check a segment and map it.

    The first opening in a process reads both files once to verify their checksums, at the speed of the disk or,
    for files in the page cache, at several gigabytes a second; memory does not grow.

    Returns:
        Keys in memory, and embeddings mapped from their file.

    Raises:
        SegmentDamagedError: A file is not what the manifest says.
    """
    vectors = open_array(vectors_path(folder, entry.name), FILE_TYPES[dtype], entry.rows, dim, entry.vectors_xxh3)
    keys = open_array(keys_path(folder, entry.name), _KEY_TYPE, entry.rows, KEY_BYTES, entry.keys_xxh3)
    return np.array(keys), vectors


def open_array(path: Path, dtype: FileType, rows: int, dim: int, checksum: str) -> Shaped[np.ndarray, "n dim"]:
    """Check an npy file against its expected shape and checksum, and map it."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            known = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, checksum)
            if known not in _verified:
                verify(file, status.st_size, npy_header(dtype, rows, dim), dtype.itemsize * rows * dim, checksum)
                _verified.add(known)
            mapped = np.memmap(file, dtype=dtype, mode="r", offset=HEADER_BYTES, shape=(rows, dim))
    except FileNotFoundError as error:
        # Other faults, of permissions or open files, say nothing of the content: it must not be thrown away for them.
        raise SegmentDamagedError(f"{path.name} is missing") from error
    return mapped.view(np.ndarray)


def verify(file: BinaryIO, size: int, header: bytes, content_bytes: int, checksum: str) -> None:
    """Raise SegmentDamagedError unless a file has this header, length and checksum."""
    name = Path(file.name).name
    if size != HEADER_BYTES + content_bytes:
        raise SegmentDamagedError(f"{name} has {size:,} bytes instead of {HEADER_BYTES + content_bytes:,}")
    if file.read(HEADER_BYTES) != header:
        raise SegmentDamagedError(f"{name} has a damaged header")
    hasher = xxhash.xxh3_128()
    while chunk := file.read(_READ_BYTES):
        hasher.update(chunk)
    if hasher.hexdigest() != checksum:
        raise SegmentDamagedError(f"{name} does not match its checksum")
