"""What a store of embeddings must do, and the store in memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from simtrain.cache.key_index import KeyIndex
from simtrain.cache.storage_types import STORAGE_TYPES
from simtrain.errors import CacheError

logger = logging.getLogger("simtrain")

FreeBytes = Callable[[torch.device], "int | None"]
# Of a GPU's free memory, the share that training needs for its own: activations, gradients, the allocator's blocks.
KEPT_FREE = 0.1


@runtime_checkable
class Store(Protocol):
    """Embeddings by key. Rows are numbered in order of arrival, and a row number stays valid while the store lives.

    Attributes:
        dim: Number of dimensions of an embedding.
        dtype: Type of the stored numbers.
    """

    dim: int
    dtype: str

    @property
    def index(self) -> KeyIndex:
        """Keys → rows; light enough to be sent to loader workers."""
        ...

    def __len__(self) -> int:
        """Number of stored embeddings."""
        ...

    def lookup(self, keys: UInt8[np.ndarray, "n 16"]) -> Int64[Tensor, " n"]:
        """Row of each key, −1 where it is missing."""
        ...

    def reserve(self, count: int) -> None:
        """Make room for ``count`` more embeddings."""
        ...

    def append(self, keys: UInt8[np.ndarray, "n 16"], vectors: Float[Tensor, "n dim"]) -> None:
        """Add embeddings under keys that are not there yet."""
        ...

    def gather(self, rows: Int64[Tensor, " n"], device: torch.device | str | None = None) -> Float[Tensor, "n dim"]:
        """Embeddings of rows in float32, on ``device`` (default: where the store keeps them)."""
        ...

    def writing(self) -> AbstractContextManager[None]:
        """Context in which several batches are appended; at its end they are safe, and others may write."""
        ...


def free_bytes(device: torch.device) -> int | None:
    """Free memory of a GPU, the blocks that torch holds in reserve included; None where it cannot be told.

    Example:
        >>> free_bytes(torch.device("cpu")) is None
        True
    """
    if device.type != "cuda":
        return None
    reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + reserve


def fits(wanted: int, free: int | None) -> bool:
    """Whether ``wanted`` bytes can be taken of ``free`` ones and leave room for training.

    Example:
        >>> fits(90, 100), fits(91, 100), fits(10**15, None)
        (True, False, True)
    """
    return free is None or wanted <= free * (1 - KEPT_FREE)


class MemoryStore:
    """Embeddings in one tensor, on the CPU or a GPU.

    Args:
        dim: Number of dimensions of an embedding.
        dtype: Type of the stored numbers: ``"float32"``, ``"float16"`` or ``"bfloat16"``.
        device: Where the tensor lies. A GPU that has no room for it is given up for the CPU, with a logged message.
        free: Tells the free bytes of a device.

    Example:
        >>> store = MemoryStore(dim=2)
        >>> store.append(np.eye(2, 16, dtype=np.uint8), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        >>> store.gather(torch.tensor([1, 0, 1]))
        tensor([[3., 4.],
                [1., 2.],
                [3., 4.]])
    """

    def __init__(
        self, dim: int, dtype: str = "float32", device: torch.device | str = "cpu", free: FreeBytes = free_bytes
    ) -> None:
        self.dim = dim
        self.dtype = dtype
        self.device = torch.device(device)
        self._free = free
        self.index = KeyIndex()
        self._vectors = torch.empty(0, dim, dtype=STORAGE_TYPES[dtype], device=self.device)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def vectors(self) -> Float[Tensor, "n dim"]:
        """All stored embeddings, a view in the stored type."""
        # A slice costs as much as a small gather.
        return self._vectors if len(self) == len(self._vectors) else self._vectors[: len(self)]

    def lookup(self, keys: UInt8[np.ndarray, "n 16"]) -> Int64[Tensor, " n"]:
        """Row of each key, −1 where it is missing."""
        return torch.from_numpy(self.index.lookup(keys))

    def reserve(self, count: int) -> None:
        """Make room for ``count`` more embeddings, so that appending them copies nothing.

        Raises:
            CacheError: There is not enough memory.
        """
        wanted = len(self) + count
        if wanted <= len(self._vectors):
            return
        grown = self._allocate(wanted)
        if len(self):
            grown[: len(self)] = self.vectors
        self._vectors = grown

    def append(self, keys: UInt8[np.ndarray, "n 16"], vectors: Float[Tensor, "n dim"]) -> None:
        """Add embeddings under keys that are not there yet."""
        start, end = len(self), len(self) + len(keys)
        if end > len(self._vectors):
            self.reserve(max(len(keys), len(self)))  # doubling keeps the cost of growing linear
        self._vectors[start:end] = vectors.detach()
        self.index.extend(keys)

    def gather(self, rows: Int64[Tensor, " n"], device: torch.device | str | None = None) -> Float[Tensor, "n dim"]:
        """Embeddings of rows in float32, on ``device`` (default: where the store keeps them)."""
        vectors = self.vectors
        picked = vectors.index_select(0, rows if rows.device == vectors.device else rows.to(vectors.device))
        return picked.to(device or vectors.device, torch.float32)

    def writing(self) -> AbstractContextManager[None]:
        """Nothing to do: what is appended is there at once, for this process only."""
        return nullcontext()

    def _allocate(self, count: int) -> Tensor:
        dtype = STORAGE_TYPES[self.dtype]
        if not fits(count * self.dim * dtype.itemsize, self._free(self.device)):
            return self._allocate_on_cpu(count)
        try:
            return torch.empty(count, self.dim, dtype=dtype, device=self.device)
        except RuntimeError as error:  # on the CPU torch raises no class of its own for this
            size = count * self.dim * dtype.itemsize / 2**30
            if self.device.type == "cpu":
                raise CacheError(
                    f"a cache of {count:,} embeddings needs {size:.1f} GiB of memory, which is not there; "
                    f"use CacheType.DISK or dtype='float16'"
                ) from error
            return self._allocate_on_cpu(count)

    def _allocate_on_cpu(self, count: int) -> Tensor:
        size = count * self.dim * STORAGE_TYPES[self.dtype].itemsize / 2**30
        logger.warning("cache: %.1f GiB do not fit on %s; the embeddings are kept on the CPU", size, self.device)
        self.device = torch.device("cpu")
        return self._allocate(count)
