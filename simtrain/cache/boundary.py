"""The encoder that stands in for a partly frozen one while training: it begins at the boundary."""

from __future__ import annotations

from typing import Any, cast

from jaxtyping import Float, Int64
from torch import Tensor

from simtrain.cache.cached_encoder import CachedEncoder
from simtrain.cache.dense_states import DenseStateCache
from simtrain.cache.state_cache import StateCache
from simtrain.cache.views import own_rows
from simtrain.encoders.layer_split import SplitEncoder
from simtrain.encoders.module_split import DenseSplitEncoder


class BoundaryEncoder(CachedEncoder):
    """Looks up what the frozen layers gave, and runs the trained ones: collates raw items to row numbers.

    The layers that it runs are those of the real encoder, which is what is trained, saved and served.

    Args:
        cache: The filled cache at the encoder's boundary.
    """

    cache: StateCache | DenseStateCache

    def __init__(self, cache: StateCache | DenseStateCache) -> None:
        super().__init__(cache)
        # A part of this one, other than in a CachedEncoder: it has a mode, and its weights are used.
        self.whole = cache.encoder

    @property
    def encoder(self) -> Any:
        """The real encoder."""
        return self.whole

    @property
    def trainable(self) -> bool:
        """Always True."""
        return True

    def forward(self, batch: Int64[Tensor, "n ..."]) -> Float[Tensor, "n dim"]:
        """Gather states, and embed them.

        Args:
            batch: Row numbers, as a :class:`CachedEncoder` takes them.

        Returns:
            Embeddings on the device of ``batch``, shape ``(n, embedding_size)``.
        """
        states: Any = self.cache.gather(own_rows(batch), batch.device)
        if isinstance(states, Tensor):
            return cast("DenseSplitEncoder", self.whole).trainable_part(states)
        return cast("SplitEncoder", self.whole).trainable_part(*states)
