"""The store on disk for items of several vectors each: segments with one more column, the items' lengths."""

from __future__ import annotations

import itertools
from contextlib import AbstractContextManager
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from simtrain.cache.column_files import Column
from simtrain.cache.key_index import KeyIndex
from simtrain.cache.manifest import Manifest
from simtrain.cache.ragged import Padded, Ragged, padded, places
from simtrain.cache.segment_folder import SEGMENT_ROWS, SEGMENT_SECONDS, SegmentFolder
from simtrain.cache.segments import Segment
from simtrain.cache.storage_types import FILE_TYPES, STORAGE_TYPES, from_file_array, to_file_array
from simtrain.errors import CacheError

VECTORS, LENGTHS = ".npy", ".lengths.npy"


class RaggedDiskStore:
    """Items in a folder, possibly more than fit into memory; as safe as a :class:`~simtrain.cache.DiskStore`.

    Args:
        folder: Where; made if it does not exist.
        dim: Number of dimensions of a vector.
        dtype: Type of the stored numbers: ``"float32"``, ``"float16"`` or ``"bfloat16"``.
        fingerprint: Identity of what makes the vectors.
        encoder: What makes the vectors, in words.
        segment_rows: Items per segment.
        segment_seconds: Seconds of writing after which items are made safe.

    Raises:
        CacheError: The folder cannot be used, or holds something else.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> states = Ragged(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([2, 1]))
        >>> RaggedDiskStore(folder, dim=1).append(np.eye(2, 16, dtype=np.uint8), states)
        >>> RaggedDiskStore(folder, dim=1).gather(torch.tensor([1, 0])).mask
        tensor([[1, 0],
                [1, 1]])
    """

    def __init__(
        self,
        folder: str | Path,
        dim: int,
        dtype: str = "float16",
        *,
        fingerprint: str = "",
        encoder: str = "",
        segment_rows: int = SEGMENT_ROWS,
        segment_seconds: float = SEGMENT_SECONDS,
    ) -> None:
        self.dim, self.dtype = dim, dtype
        columns = (Column(VECTORS, FILE_TYPES[dtype].str, dim), Column(LENGTHS, "<i8", 1))
        manifest = Manifest(fingerprint, dim, dtype, columns, encoder=encoder)
        self._rows = SegmentFolder(Path(folder), manifest, segment_rows, segment_seconds)
        # Where each item of a segment begins in its file of vectors, and the end of the last one.
        self._bounds: WeakKeyDictionary[Segment, Int64[np.ndarray, " items"]] = WeakKeyDictionary()

    @property
    def folder(self) -> Path:
        """Where the items are."""
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

    def append(self, keys: UInt8[np.ndarray, "n 16"], vectors: Ragged) -> None:
        """Add items under keys that are not there yet; see :meth:`simtrain.cache.DiskStore.append`.

        Raises:
            CacheError: The disk is full or cannot be written to; what was stored before stays usable.
        """
        if not self._rows.is_writing:
            with self.writing():
                self.append(keys, vectors)
            return
        content, lengths = to_file_array(vectors.values, self.dtype), vectors.lengths.cpu().numpy()
        bounds, start = np.append(0, np.cumsum(lengths)), 0
        while start < len(keys):
            end = min(start + self._rows.room, len(keys))
            columns = {VECTORS: content[bounds[start] : bounds[end]], LENGTHS: lengths[start:end, None]}
            self._rows.append(keys[start:end], columns)
            start = end

    def gather(self, rows: Int64[Tensor, " n"], device: torch.device | str | None = None) -> Padded:
        """Items of rows in the stored type, padded to the longest, on ``device`` (default: the CPU).

        Raises:
            CacheError: A row number is not one of the store's, or its segment has been damaged since it was filled.
        """
        numbers, order = rows.cpu().sort()
        last = self._rows.known.n_rows - 1
        if len(numbers) and not 0 <= int(numbers[0]) <= int(numbers[-1]) <= last:
            raise CacheError(f"row numbers must be from 0 to {last}, got {int(numbers[0])} to {int(numbers[-1])}")
        found = self._take(numbers.numpy())
        items = padded(found.values, found.lengths)
        back = order.argsort()
        where = device or "cpu"
        return Padded(items.values.index_select(0, back).to(where), items.mask.index_select(0, back).to(where))

    def writing(self) -> AbstractContextManager[None]:
        """Hold the folder's lock; see what other processes have added; at the end, make what was appended safe."""
        return self._rows.writing()

    def _take(self, numbers: Int64[np.ndarray, " n"]) -> Ragged:
        """Items of row numbers in ascending order: one call for each segment among them."""
        ends = np.searchsorted(numbers, self._rows.known.starts).tolist()
        parts = [
            self._take_from(number, torch.from_numpy(numbers[first:end]))
            for number, (first, end) in enumerate(itertools.pairwise(ends))
            if first < end
        ]
        if not parts:
            return Ragged(torch.empty(0, self.dim, dtype=STORAGE_TYPES[self.dtype]), torch.empty(0, dtype=torch.long))
        return Ragged(torch.cat([part.values for part in parts]), torch.cat([part.lengths for part in parts]))

    def _take_from(self, number: int, rows: Int64[Tensor, " n"]) -> Ragged:
        segment = self._rows.known.segments[number]
        if not segment.is_whole and not self._rows.known.check(np.array([number])):
            raise CacheError(
                f"token states of the cache in {self.folder} have been damaged since it was filled; fill it again, "
                f"which computes only those, for example by starting the run again"
            )
        if segment not in self._bounds:
            self._bounds[segment] = np.append(0, np.cumsum(segment.arrays[LENGTHS][:, 0]))
        bounds, within = torch.from_numpy(self._bounds[segment]), rows - segment.start
        lengths = bounds[within + 1] - bounds[within]
        picked = segment.arrays[VECTORS].take(places(bounds[within], lengths).numpy(), 0)
        return Ragged(from_file_array(picked, self.dtype), lengths)
