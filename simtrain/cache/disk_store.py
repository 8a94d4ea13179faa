"""The store on disk: segments that are mapped into memory, shared by processes and runs."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

from simtrain.cache.key_index import KeyIndex
from simtrain.cache.manifest import Manifest, read_manifest, write_manifest
from simtrain.cache.segments import SegmentDamagedError, SegmentEntry, SegmentWriter, open_segment
from simtrain.cache.storage_types import FILE_TYPES, from_file_array
from simtrain.errors import CacheError

logger = logging.getLogger("simtrain")

LOCK_FILE = ".lock"
SEGMENT_ROWS = 16_384
_SEGMENT_FILE = re.compile(r"segment-(\d+)(\.keys)?\.npy")


class DiskStore:
    """Embeddings in a folder, possibly more than fit into memory.

    The folder may be shared: one process writes at a time, others wait for it and then find its embeddings.
    Whatever happens to a writing process, all segments that the manifest names stay whole; at most the segment
    at hand is lost. Damaged segments are left out, with a logged message, and removed at the next writing.

    Opening verifies all checksums, once per process; see :func:`~simtrain.cache.segments.open_segment`.

    Args:
        folder: Where; made if it does not exist.
        dim: Number of dimensions of an embedding.
        dtype: Type of the stored numbers: ``"float32"``, ``"float16"`` or ``"bfloat16"``.
        fingerprint: Identity of what makes the embeddings.
        segment_rows: Embeddings per segment.

    Raises:
        CacheError: The folder cannot be used, or holds embeddings of another identity, size or type.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> DiskStore(folder, dim=2).append(np.eye(1, 16, dtype=np.uint8), torch.tensor([[1.0, 2.0]]))
        >>> DiskStore(folder, dim=2).gather(torch.tensor([0]))
        tensor([[1., 2.]])
    """

    def __init__(
        self,
        folder: str | Path,
        dim: int,
        dtype: str = "float32",
        *,
        fingerprint: str = "",
        segment_rows: int = SEGMENT_ROWS,
    ) -> None:
        self.folder = Path(folder)
        self.dim = dim
        self.dtype = dtype
        self.segment_rows = segment_rows
        self.index = KeyIndex()
        self._arrays: list[Shaped[np.ndarray, "n dim"]] = []
        self._starts = np.zeros(1, dtype=np.int64)
        self._opened: set[SegmentEntry] = set()
        self._writer: SegmentWriter | None = None
        self._is_writing = False
        self._manifest = Manifest(fingerprint, dim, dtype)
        self._make_folder()
        self._refresh()

    def __len__(self) -> int:
        return len(self.index)

    def lookup(self, keys: UInt8[np.ndarray, "n 16"]) -> Int64[Tensor, " n"]:
        """Row of each key, −1 where it is missing or still on its way to the disk."""
        return torch.from_numpy(self.index.lookup(keys))

    def reserve(self, count: int) -> None:
        """Nothing to do: files grow by themselves."""

    def append(self, keys: UInt8[np.ndarray, "n 16"], vectors: Float[Tensor, "n dim"]) -> None:
        """Add embeddings under keys that are not there yet.

        They can be looked up when their segment is full or :meth:`writing` ends. Outside of :meth:`writing`, each
        call makes a segment of its own.

        Raises:
            CacheError: The disk is full or cannot be written to; what was stored before stays usable.
        """
        if not self._is_writing:
            with self.writing():
                self.append(keys, vectors)
            return
        start = 0
        while start < len(keys):
            with self._clear_faults():
                writer = self._open_writer()
                end = min(len(keys), start + self.segment_rows - writer.rows)
                writer.write(keys[start:end], vectors[start:end])
            start = end
            if writer.rows >= self.segment_rows:
                self._commit()

    def gather(self, rows: Int64[Tensor, " n"], device: torch.device | str | None = None) -> Float[Tensor, "n dim"]:
        """Embeddings of rows in float32, on ``device`` (default: the CPU).

        Raises:
            CacheError: A row number is not one of the store's.
        """
        numbers = rows.cpu().numpy()
        order = np.argsort(numbers)
        numbers = numbers[order]
        if len(numbers) and not 0 <= numbers[0] <= numbers[-1] < len(self):
            raise CacheError(f"row numbers must be from 0 to {len(self) - 1}, got {numbers[0]} to {numbers[-1]}")
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        picked = from_file_array(self._take(numbers), self.dtype)
        return picked.index_select(0, torch.from_numpy(places)).to(device or "cpu", torch.float32)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the folder's lock; see what other processes have added; at the end, make what was appended safe."""
        with self._locked():
            self._refresh()
            with self._clear_faults():
                self._clean()
            self._is_writing = True
            try:
                yield
            finally:
                # Also after an error or Ctrl-C: what has been encoded is kept.
                self._is_writing = False
                self._commit()

    def _take(self, numbers: Int64[np.ndarray, " n"]) -> Shaped[np.ndarray, "n dim"]:
        """Rows in the stored type, for row numbers in ascending order: one call for each segment among them."""
        picked = np.empty((len(numbers), self.dim), dtype=FILE_TYPES[self.dtype])
        bounds = np.searchsorted(numbers, self._starts)
        places = numbers - np.repeat(self._starts[:-1], np.diff(bounds))
        ends = bounds.tolist()
        for array, first, last in zip(self._arrays, ends, ends[1:], strict=False):
            if first < last:
                # "clip" lets numpy write into `out` directly; all numbers are in range.
                array.take(places[first:last], 0, picked[first:last], "clip")
        return picked

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
        except (OSError, SegmentDamagedError) as error:
            self._abort()
            raise CacheError(self._unwritable(error)) from error

    def _refresh(self) -> None:
        """Open the segments that are new in the manifest; leave out those that are damaged."""
        manifest = read_manifest(self.folder, self._manifest)
        whole = [entry for entry in manifest.segments if entry in self._opened or self._open(entry)]
        self._manifest = manifest.with_segments(whole)

    def _open(self, entry: SegmentEntry) -> bool:
        try:
            self._attach(entry, *open_segment(self.folder, entry, self.dim, self.dtype))
        except SegmentDamagedError as error:
            logger.warning("cache %s: %s; %d embeddings are computed again", self.folder, error, entry.rows)
            return False
        except OSError as error:
            raise CacheError(f"cannot read {entry.name} of the cache in {self.folder}: {error.strerror}") from error
        return True

    def _attach(
        self, entry: SegmentEntry, keys: UInt8[np.ndarray, "n 16"], vectors: Shaped[np.ndarray, "n dim"]
    ) -> None:
        self._opened.add(entry)
        self._arrays.append(vectors)
        self._starts = np.append(self._starts, self._starts[-1] + entry.rows)
        self.index.extend(keys)

    def _clean(self) -> None:
        """Remove damaged segments and what killed processes left. Needs the lock."""
        names = {entry.name for entry in self._manifest.segments}
        files = [path for path in self.folder.iterdir() if _SEGMENT_FILE.fullmatch(path.name)]
        leftovers = [path for path in files if path.name.split(".")[0] not in names]
        if leftovers:
            # First the manifest: it must never name a file that is gone.
            write_manifest(self.folder, self._manifest)
        for path in leftovers:
            path.unlink(missing_ok=True)

    def _open_writer(self) -> SegmentWriter:
        if self._writer is None:
            numbers = [int(entry.name.split("-")[1]) for entry in self._opened.union(self._manifest.segments)]
            name = f"segment-{max(numbers, default=-1) + 1:06d}"
            self._writer = SegmentWriter(self.folder, name, self.dim, self.dtype)
        return self._writer

    def _commit(self) -> None:
        """Make the segment at hand a part of the store, once it has been read back."""
        if self._writer is None:
            return
        with self._clear_faults():
            entry = self._writer.finish()
            keys, vectors = open_segment(self.folder, entry, self.dim, self.dtype)
            manifest = self._manifest.with_segments((*self._manifest.segments, entry))
            write_manifest(self.folder, manifest)
        self._writer = None
        self._manifest = manifest
        self._attach(entry, keys, vectors)

    def _abort(self) -> None:
        if self._writer is not None:
            self._writer.abort()
            self._writer = None
