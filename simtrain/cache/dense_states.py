"""The cache at the boundary of a network that gives one tensor of a fixed shape for each item."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from simtrain.cache.embedding_cache import EmbeddingCache
from simtrain.cache.filling import Items, Positions, checked_vectors
from simtrain.cache.stores import Store
from simtrain.data.transfer import move_to
from simtrain.encoders.module_split import DenseSplitEncoder
from simtrain.errors import DataError


class DenseStateCache(EmbeddingCache):
    """What the frozen modules of a partly frozen encoder give, computed once for each distinct item.

    Args:
        encoder: An encoder that can be cut between its frozen and its trained modules.
        store: Where the states are kept, flat.
        shape: Shape of one item's.
        **options: Those of :class:`EmbeddingCache`.
    """

    def __init__(self, encoder: nn.Module, store: Store, shape: Sequence[int], **options: Any) -> None:
        super().__init__(encoder, store, **options)
        self.shape = tuple(shape)

    @property
    def embedding_size(self) -> int:
        """Number of dimensions of an embedding of the whole encoder."""
        return int(self.encoder.embedding_size)  # type: ignore[arg-type]

    def gather(self, rows: Int64[Tensor, " n"], device: torch.device | str | None = None) -> Float[Tensor, "n ..."]:
        """States of rows in float32, shape ``(n, *shape)``, on ``device`` (default: the cache's)."""
        return super().gather(rows, device).view(len(rows), *self.shape)

    def _encoded(self, batch: Any, objects: Items, positions: Positions) -> Any:
        with torch.inference_mode():
            states = cast("DenseSplitEncoder", self.encoder).frozen_part(move_to(batch, self.device))
        if tuple(states.shape[1:]) != self.shape:
            raise DataError(
                f"the frozen modules of encoder {self.name!r} give shape {tuple(states.shape[1:])} for item "
                f"{int(positions[0])} and {self.shape} for an example; a boundary needs items of one shape"
            )
        flat = states.reshape(len(states), math.prod(self.shape))
        return checked_vectors(self.name, flat, objects, positions, self.store.dim, self.store.dtype)
