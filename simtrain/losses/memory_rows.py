"""What a memory hands to a loss: remembered embeddings, and what is known of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from simtrain.losses.unit_vectors import inverse_lengths

#: Memory rows that are converted at a time, where the memory is kept in half precision.
_TILE = 4_096


@dataclass(frozen=True)
class MemoryRows:
    """Remembered embeddings, as they lie in the memory: they are read and never copied as a whole.

    Args:
        embeddings: Shape ``(memory, dim)``, in the dtype of the memory.
        groups: Group of each row, shape ``(memory,)``; in a memory of pairs, its subgroup.
        items: Number of each row's item, shape ``(memory,)``, by which an item's own entries are known.
        sides: 0 for a query, 1 for a document, shape ``(memory,)``; only in a memory of pairs.
        norms: Length of each row, shape ``(memory,)``, float32 or wider. Default: computed.

    Example:
        >>> rows = MemoryRows(torch.tensor([[3.0, 4.0]]), torch.tensor([7]), torch.tensor([0]))
        >>> rows.lengths
        tensor([5.])
    """

    embeddings: Float[Tensor, "memory dim"]
    groups: Integer[Tensor, " memory"]
    items: Integer[Tensor, " memory"]
    sides: Integer[Tensor, " memory"] | None = None
    norms: Float[Tensor, " memory"] | None = None

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def lengths(self) -> Float[Tensor, " memory"]:
        """Length of each row."""
        if self.norms is not None:
            return self.norms
        return torch.cat([torch.linalg.vector_norm(tile, dim=1) for _, tile in self.tiles()])

    def inverse_lengths(self, dtype: torch.dtype) -> Float[Tensor, " memory"]:
        """What brings each row to length 1; 0 for one without a direction."""
        return inverse_lengths(self.lengths.to(dtype))

    def tiles(self, dtype: torch.dtype = torch.float32) -> Iterator[tuple[slice, Float[Tensor, "tile dim"]]]:
        """Parts of the embeddings in float32 or wider. Rows that are so already come in one part, uncopied."""
        dtype = torch.promote_types(dtype, self.embeddings.dtype)
        size = max(len(self), 1) if self.embeddings.dtype == dtype else _TILE
        for first in range(0, len(self), size):
            part = slice(first, min(first + size, len(self)))
            yield part, self.embeddings[part].detach().to(dtype)

    def pick(self, rows: Integer[Tensor, " n"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "n dim"]:
        """Some embeddings, in float32 or wider."""
        picked = self.embeddings.detach().index_select(0, rows)
        return picked.to(torch.promote_types(dtype, picked.dtype))

    def to(self, device: torch.device) -> MemoryRows:
        """The rows on a device."""
        sides = None if self.sides is None else self.sides.to(device)
        norms = None if self.norms is None else self.norms.to(device)
        return MemoryRows(self.embeddings.to(device), self.groups.to(device), self.items.to(device), sides, norms)
