"""Embeddings that come batch by batch, kept in memory up to a budget and in a temporary file beyond it."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from typing import IO

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from simtrain.errors import ConfigError, DataError

STORE_BUDGET = 2**30
CHUNK = 4096


class EmbeddingStore:
    """Rows of float32, appended and then read as one tensor.

    Args:
        memory_budget: Bytes to hold in memory. What goes beyond it is in a file of the system's folder for temporary
            files, which is gone with the store.

    Raises:
        ConfigError: The budget is not positive.

    Example:
        >>> store = EmbeddingStore()
        >>> store.add(torch.ones(2, 3)), store.add(torch.zeros(1, 3))
        (None, None)
        >>> store.rows().shape
        torch.Size([3, 3])
    """

    def __init__(self, memory_budget: int = STORE_BUDGET) -> None:
        if memory_budget <= 0:
            raise ConfigError(f"memory_budget is a positive number of bytes, got {memory_budget}")
        self.memory_budget = memory_budget
        self._chunks: list[Tensor] = []
        self._file: IO[bytes] | None = None
        self._size, self._dim = 0, 0

    def __len__(self) -> int:
        return self._size

    @property
    def is_in_memory(self) -> bool:
        """Whether no file was needed."""
        return self._file is None

    def add(self, rows: Float[Tensor, "rows dim"]) -> None:
        """Append rows; they are copied.

        Raises:
            DataError: They have another number of dimensions than those before.
        """
        if self._size and rows.shape[1] != self._dim:
            raise DataError(f"embeddings of {self._dim} dimensions are followed by some of {rows.shape[1]}")
        self._dim = rows.shape[1]
        kept = torch.empty(rows.shape, dtype=torch.float32)
        kept.copy_(rows.detach())
        self._size += len(kept)
        self._chunks.append(kept)
        if self._file is None and self._size * self._dim * 4 > self.memory_budget:
            # No name: the operating system removes it with the process, however that ends.
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the store
            weakref.finalize(self, self._file.close)
        if self._file is not None:
            self._write()

    def rows(self) -> Float[Tensor, "rows dim"]:
        """All rows; of a file, mapped and not read."""
        if self._file is not None:
            self._file.flush()
            mapped = np.memmap(self._file, dtype=np.float32, mode="r+", shape=(self._size, self._dim))
            return torch.from_numpy(mapped)
        if len(self._chunks) != 1:
            self._chunks = [self._joined()]
        return self._chunks[0]

    def take(self, order: Int64[Tensor, " taken"]) -> EmbeddingStore:
        """A store of these rows in this order, made some at a time."""
        taken, rows = EmbeddingStore(self.memory_budget), self.rows()
        for some in torch.split(order, CHUNK):
            taken.add(rows[some])
        if not len(order):
            taken.add(rows[:0])
        return taken

    def clear(self) -> None:
        """Forget all rows."""
        if self._file is not None:
            self._file.close()
        self._chunks, self._file, self._size, self._dim = [], None, 0, 0

    def _write(self) -> None:
        assert self._file is not None
        for chunk in self._chunks:
            self._file.write(chunk.numpy().tobytes())
        self._chunks = []

    def _joined(self) -> Tensor:
        # Chunk by chunk: beside the joined rows there is then never a second copy of all of them.
        joined = torch.empty(self._size, self._dim)
        start = 0
        for chunk in self._emptied():
            joined[start : start + len(chunk)] = chunk
            start += len(chunk)
        return joined

    def _emptied(self) -> Iterator[Tensor]:
        self._chunks.reverse()
        while self._chunks:
            yield self._chunks.pop()
