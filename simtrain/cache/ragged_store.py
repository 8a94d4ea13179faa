"""What a store of items of several vectors each (the token states of texts) must do, and the store in memory."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from simtrain.cache.key_index import KeyIndex
from simtrain.cache.ragged import Padded, Ragged, length_mask
from simtrain.cache.storage_types import STORAGE_TYPES
from simtrain.cache.stores import FreeBytes, fits, free_bytes
from simtrain.errors import CacheError

logger = logging.getLogger("simtrain")

_GROWTH = 1.5


@runtime_checkable
class RaggedStore(Protocol):
    """Items of several vectors by key; rows are numbered as in a :class:`~simtrain.cache.Store`.

    Attributes:
        dim: Number of dimensions of a vector.
        dtype: Type of the stored numbers.
    """

    dim: int
    dtype: str

    @property
    def index(self) -> KeyIndex:
        """Keys → rows; light enough to be sent to loader workers."""
        ...

    def __len__(self) -> int:
        """Number of stored items."""
        ...

    def lookup(self, keys: UInt8[np.ndarray, "n 16"]) -> Int64[Tensor, " n"]:
        """Row of each key, −1 where it is missing."""
        ...

    def reserve(self, count: int) -> None:
        """Say that ``count`` more items are coming."""
        ...

    def append(self, keys: UInt8[np.ndarray, "n 16"], vectors: Ragged) -> None:
        """Add items under keys that are not there yet."""
        ...

    def gather(self, rows: Int64[Tensor, " n"], device: torch.device | str | None = None) -> Padded:
        """Items of rows in the stored type, padded to the longest, on ``device`` (default: where they are kept)."""
        ...

    def writing(self) -> AbstractContextManager[None]:
        """Context in which several batches are appended; at its end they are safe, and others may write."""
        ...


class RaggedMemoryStore:
    """Items in one flat tensor, on the CPU or a GPU.

    Args:
        dim: Number of dimensions of a vector.
        dtype: Type of the stored numbers: ``"float32"``, ``"float16"`` or ``"bfloat16"``.
        device: Where the tensor lies. A GPU that has no room for it is given up for the CPU, with a logged message.
        free: Tells the free bytes of a device.

    Example:
        >>> store = RaggedMemoryStore(dim=1)
        >>> states = Ragged(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([2, 1]))
        >>> store.append(np.eye(2, 16, dtype=np.uint8), states)
        >>> store.gather(torch.tensor([1, 0])).values.squeeze(2)
        tensor([[3., 0.],
                [1., 2.]], dtype=torch.float16)
    """

    def __init__(
        self, dim: int, dtype: str = "float16", device: torch.device | str = "cpu", free: FreeBytes = free_bytes
    ) -> None:
        self.dim, self.dtype, self._free = dim, dtype, free
        self.device = torch.device(device)
        self.index = KeyIndex()
        self._vectors = torch.empty(0, dim, dtype=STORAGE_TYPES[dtype], device=self.device)
        # Where each item begins, and, last, where the next one will.
        self._bounds = torch.zeros(1, dtype=torch.long)
        self._awaited = 0

    def __len__(self) -> int:
        return len(self.index)

    @property
    def n_vectors(self) -> int:
        """Number of vectors of all items."""
        return int(self._bounds[len(self)])

    def lookup(self, keys: UInt8[np.ndarray, "n 16"]) -> Int64[Tensor, " n"]:
        """Row of each key, −1 where it is missing."""
        return torch.from_numpy(self.index.lookup(keys))

    def reserve(self, count: int) -> None:
        """Say that ``count`` more items are coming, so that few steps of growth are needed."""
        self._awaited = count
        bounds = torch.zeros(len(self) + count + 1, dtype=torch.long)
        bounds[: len(self) + 1] = self._bounds[: len(self) + 1]
        self._bounds = bounds

    def append(self, keys: UInt8[np.ndarray, "n 16"], vectors: Ragged) -> None:
        """Add items under keys that are not there yet.

        Raises:
            CacheError: There is not enough memory.
        """
        first, start = len(self), self.n_vectors
        end = start + len(vectors.values)
        if first + len(keys) >= len(self._bounds):
            self.reserve(max(len(keys), len(self)))
        if end > len(self._vectors):
            self._grow(end, vectors)
        self._vectors[start:end] = vectors.values.detach()
        self._bounds[first + 1 : first + len(keys) + 1] = start + vectors.lengths.cpu().cumsum(0)
        self.index.extend(keys)
        self._awaited -= len(keys)

    def gather(self, rows: Int64[Tensor, " n"], device: torch.device | str | None = None) -> Padded:
        """Items of rows in the stored type, padded to the longest, on ``device`` (default: where they are kept).

        Raises:
            CacheError: A row number is not one of the store's.
        """
        rows = rows.cpu()
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(self):
            raise CacheError(
                f"row numbers must be from 0 to {len(self) - 1}, got {int(rows.min())} to {int(rows.max())}"
            )
        starts = self._bounds[rows]
        mask = length_mask(self._bounds[rows + 1] - starts)
        wanted = (starts.unsqueeze(1) + torch.arange(mask.shape[1])).masked_fill_(~mask, 0)
        mask, where = mask.to(self.device), device or self.device
        values = self._vectors.index_select(0, wanted.reshape(-1).to(self.device)).view(*wanted.shape, self.dim)
        return Padded(values.masked_fill_(~mask.unsqueeze(2), 0).to(where), mask.long().to(where))

    def writing(self) -> AbstractContextManager[None]:
        """Nothing to do: what is appended is there at once, for this process only."""
        return nullcontext()

    def _grow(self, needed: int, vectors: Ragged) -> None:
        size = max(needed, int(_GROWTH * len(self._vectors)))
        if self.device.type == "cpu":
            # Filling begins with the longest items, so that this is enough to the end, and no copy is made. Memory
            # that is never written to is not taken.
            size = max(size, self.n_vectors + int(self._awaited * len(vectors.values) / max(1, len(vectors.lengths))))
        grown = self._allocate(size, needed)
        grown[: self.n_vectors] = self._vectors[: self.n_vectors]
        self._vectors = grown

    def _allocate(self, size: int, needed: int) -> Tensor:
        dtype = STORAGE_TYPES[self.dtype]
        if not fits(size * self.dim * dtype.itemsize, self._free(self.device)):
            return self._allocate(needed, needed) if size > needed else self._allocate_on_cpu(needed)
        try:
            return torch.empty(size, self.dim, dtype=dtype, device=self.device)
        except RuntimeError as error:  # on the CPU torch raises no class of its own for this
            if size > needed:
                return self._allocate(needed, needed)
            gib = size * self.dim * dtype.itemsize / 2**30
            if self.device.type == "cpu":
                raise CacheError(
                    f"a cache of {size:,} token states needs {gib:.1f} GiB of memory, which is not there; "
                    f"use CacheType.DISK or dtype='float16'"
                ) from error
            return self._allocate_on_cpu(needed)

    def _allocate_on_cpu(self, needed: int) -> Tensor:
        gib = needed * self.dim * STORAGE_TYPES[self.dtype].itemsize / 2**30
        logger.warning("cache: %.1f GiB do not fit on %s; the token states are kept on the CPU", gib, self.device)
        self.device = torch.device("cpu")
        return self._allocate(needed, needed)
