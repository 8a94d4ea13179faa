"""The store on disk: segments that are mapped into memory, shared by processes and runs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

from simtrain.cache.column_files import Column
from simtrain.cache.key_index import KeyIndex
from simtrain.cache.manifest import Manifest
from simtrain.cache.segment_folder import SEGMENT_ROWS, SEGMENT_SECONDS, SegmentFolder
from simtrain.cache.storage_types import FILE_TYPES, from_file_array, to_file_array
from simtrain.errors import CacheError

VECTORS = ".npy"


class DiskStore:
    """Embeddings in a folder, possibly more than fit into memory.

    The folder may be shared: one process writes at a time, others wait for it and then find its embeddings.
    Whatever happens to a writing process, all rows that the manifest names stay whole; at most what was encoded in
    the last half minute is lost. Damaged segments are left out, with a logged message, and removed at the next writing.

    Opening reads the keys only. A segment's embeddings are read once in a process, to verify their checksum, before
    the first of them is used; see :class:`~simtrain.cache.known_segments.KnownSegments`.

    Args:
        folder: Where; made if it does not exist.
        dim: Number of dimensions of an embedding.
        dtype: Type of the stored numbers: ``"float32"``, ``"float16"`` or ``"bfloat16"``.
        fingerprint: Identity of what makes the embeddings.
        encoder: What makes the embeddings, in words, for ``simtrain cache ls``.
        segment_rows: Embeddings per segment.
        segment_seconds: Seconds of writing after which embeddings are made safe.

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
        encoder: str = "",
        segment_rows: int = SEGMENT_ROWS,
        segment_seconds: float = SEGMENT_SECONDS,
    ) -> None:
        self.dim = dim
        self.dtype = dtype
        columns = (Column(VECTORS, FILE_TYPES[dtype].str, dim),)
        manifest = Manifest(fingerprint, dim, dtype, columns, encoder=encoder)
        self._rows = SegmentFolder(Path(folder), manifest, segment_rows, segment_seconds)

    @property
    def folder(self) -> Path:
        """Where the embeddings are."""
        return self._rows.folder

    @property
    def index(self) -> KeyIndex:
        """Keys → rows."""
        return self._rows.known.index

    def __len__(self) -> int:
        return len(self._rows.known.index)

    def lookup(self, keys: UInt8[np.ndarray, "n 16"]) -> Int64[Tensor, " n"]:
        """Row of each key, −1 where it is missing or still on its way to the disk."""
        return torch.from_numpy(self._rows.known.lookup(keys))

    def reserve(self, count: int) -> None:
        """Nothing to do: files grow by themselves."""

    def append(self, keys: UInt8[np.ndarray, "n 16"], vectors: Float[Tensor, "n dim"]) -> None:
        """Add embeddings under keys that are not there yet.

        They can be looked up when they are safe: after half a minute, when their segment is full, or when
        :meth:`writing` ends.

        Raises:
            CacheError: The disk is full or cannot be written to; what was stored before stays usable.
        """
        if not self._rows.is_writing:
            with self.writing():
                self.append(keys, vectors)
            return
        content = to_file_array(vectors, self.dtype)
        start = 0
        while start < len(keys):
            end = start + self._rows.room
            self._rows.append(keys[start:end], {VECTORS: content[start:end]})
            start = end

    def gather(self, rows: Int64[Tensor, " n"], device: torch.device | str | None = None) -> Float[Tensor, "n dim"]:
        """Embeddings of rows in float32, on ``device`` (default: the CPU).

        Raises:
            CacheError: A row number is not one of the store's, or its segment has been damaged since it was filled.
        """
        numbers = rows.cpu().numpy()
        order = np.argsort(numbers)
        numbers = numbers[order]
        if len(numbers) and not 0 <= numbers[0] <= numbers[-1] < self._rows.known.n_rows:
            raise CacheError(
                f"row numbers must be from 0 to {self._rows.known.n_rows - 1}, got {numbers[0]} to {numbers[-1]}"
            )
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        picked = from_file_array(self._take(numbers), self.dtype)
        return picked.index_select(0, torch.from_numpy(places)).to(device or "cpu", torch.float32)

    def writing(self) -> AbstractContextManager[None]:
        """Hold the folder's lock; see what other processes have added; at the end, make what was appended safe."""
        return self._rows.writing()

    def _take(self, numbers: Int64[np.ndarray, " n"]) -> Shaped[np.ndarray, "n dim"]:
        """Rows in the stored type, for row numbers in ascending order: one call for each segment among them."""
        picked = np.empty((len(numbers), self.dim), dtype=FILE_TYPES[self.dtype])
        starts = self._rows.known.starts
        bounds = np.searchsorted(numbers, starts)
        places = numbers - np.repeat(starts[:-1], np.diff(bounds))
        ends = bounds.tolist()
        for segment, first, last in zip(self._rows.known.segments, ends, ends[1:], strict=False):
            if first < last:
                if not segment.is_whole:
                    self._check(segment.start)
                # "clip" lets numpy write into `out` directly; all numbers are in range.
                segment.arrays[VECTORS].take(places[first:last], 0, picked[first:last], "clip")
        return picked

    def _check(self, row: int) -> None:
        number = np.searchsorted(self._rows.known.starts, [row], side="right") - 1
        if not self._rows.known.check(number):
            raise CacheError(
                f"embeddings of the cache in {self.folder} have been damaged since it was filled; fill it again, which "
                f"computes only those, for example by starting the run again"
            )
