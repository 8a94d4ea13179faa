"""The encoder that stands in for a cached one while training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor, nn

from simtrain.cache.embedding_cache import EmbeddingCache, RowLookup
from simtrain.cache.views import own_rows
from simtrain.encoders import Encoder
from simtrain.encoders.encoder import MetaExtractor, SideFn
from simtrain.errors import CacheError


class CachedEncoder(Encoder):
    """Looks embeddings up instead of computing them: collates raw items to row numbers, forwards those by a gather.

    The real encoder is not a submodule: it is neither moved to the GPU nor written to checkpoints.

    Args:
        cache: The filled cache of a frozen encoder.

    Example:
        >>> import torch
        >>> from simtrain.cache import MemoryStore
        >>> from simtrain.encoders import ModuleEncoder
        >>> cache = EmbeddingCache(ModuleEncoder(nn.Identity(), embedding_size=1), MemoryStore(dim=1))
        >>> items = [torch.tensor([1.0]), torch.tensor([2.0])]
        >>> report = cache.fill(items)
        >>> encoder = CachedEncoder(cache)
        >>> encoder(encoder.get_collate_fn()(items))
        tensor([[1.],
                [2.]])
    """

    #: Says to a model that no graph comes from here.
    only_looks_up = True

    def __init__(self, cache: EmbeddingCache) -> None:
        super().__init__()
        self.cache = cache

    @property
    def encoder(self) -> nn.Module:
        """The real encoder."""
        return self.cache.encoder

    @property
    def trainable(self) -> bool:
        """Always False."""
        return False

    @property
    def embedding_size(self) -> int:
        """Number of dimensions of one embedding."""
        return self.cache.embedding_size

    def get_collate_fn(self) -> RowLookup:
        """Function from raw items to row numbers; it knows the rows that the cache has when it is used."""
        return self.cache.row_lookup

    def get_side_fn(self) -> SideFn | None:
        """That of the real encoder: an item is stored under its mark."""
        get: Any = getattr(self.encoder, "get_side_fn", None)
        return None if get is None else get()

    def get_meta_extractor(self) -> MetaExtractor | None:
        """That of the real encoder."""
        get: Any = getattr(self.encoder, "get_meta_extractor", None)
        return None if get is None else get()

    def forward(self, batch: Int64[Tensor, "n ..."]) -> Float[Tensor, "n dim"]:
        """Gather embeddings.

        Args:
            batch: Row numbers, shape ``(n,)``. Of items with several versions of which none was drawn
                (:class:`~simtrain.cache.views.ViewLookup`), the items' own.

        Returns:
            Embeddings in float32 on the device of ``batch``, shape ``(n, embedding_size)``.
        """
        return self.cache.gather(own_rows(batch), batch.device)

    def get_config_dict(self) -> dict[str, Any]:
        """Config of the real encoder."""
        config: Mapping[str, Any] = getattr(self.encoder, "get_config_dict", dict)()
        return dict(config)

    def item_length(self, item: Any) -> int:
        """All items cost the same here."""
        return 0

    def save(self, output_path: str | Path) -> None:
        """Save the real encoder."""
        self.encoder.save(output_path)  # type: ignore[operator]

    @classmethod
    def load(cls, input_path: str | Path) -> Encoder:
        """Refused: a saved model holds the real encoder.

        Raises:
            CacheError: Always.
        """
        raise CacheError(f"a CachedEncoder is never saved; load {str(input_path)!r} with the class of the real encoder")
