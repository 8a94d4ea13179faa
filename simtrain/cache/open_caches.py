"""The open caches of a model's encoders."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from simtrain.cache.boundary import BoundaryEncoder
from simtrain.cache.cached_encoder import CachedEncoder
from simtrain.cache.config import CacheConfig, CacheType
from simtrain.cache.dense_states import DenseStateCache
from simtrain.cache.embedding_cache import EmbeddingCache, FillReport, RowLookup
from simtrain.cache.filling import CountedItems
from simtrain.cache.fingerprint import encoder_fingerprint
from simtrain.cache.item_numbers import DataSources, ItemNumbers
from simtrain.cache.key_index import KeyIndex
from simtrain.cache.opening import open_cache
from simtrain.cache.resolving import boundary_names, resolve
from simtrain.cache.state_cache import StateCache, boundary_fingerprint, open_states
from simtrain.cache.views import ViewItems, ViewLookup, Views, drawn_rows
from simtrain.data.collate import EncoderCollate
from simtrain.encoders import Encoder
from simtrain.errors import CacheError

_STORES = itertools.count()


class OpenCaches:
    """Caches by encoder, opened for the encoders as they are, and filled together.

    Args:
        config: What to cache, and where.

    Attributes:
        by_name: Encoder name → its cache.
        identities: Encoder name → what its rows belong to.
        views: Encoder name → the versions that training draws from.
        sources: The data sets that were seen.
    """

    def __init__(self, config: CacheConfig) -> None:
        self.config = config
        self.by_name: dict[str, EmbeddingCache] = {}
        self.identities: dict[str, str] = {}
        self._fingerprints: dict[str, str] = {}
        self.views: dict[str, Views] = {}
        self.sources = DataSources()
        self._accelerator: torch.device | None = None
        self._written: list[tuple[int, int]] = []

    def open(self, encoders: Mapping[str, Encoder], device: torch.device | str) -> None:
        """Open the caches of the encoders as they are now; those of unchanged encoders stay open.

        Args:
            encoders: The encoders by name.
            device: Device to encode on, and to give embeddings on.
        """
        device = torch.device(device)
        # A trainer takes the model back to the CPU when it is done: what is cached on the GPU stays there.
        home = device if device.type != "cpu" or self._accelerator is None else self._accelerator
        types = resolve(self.config, encoders, home)
        cut = boundary_names(self.config, encoders)
        for name, kind in types.items():
            if kind is not CacheType.NONE:
                self._open(name, encoders[name], kind, home, name in cut)
                self.by_name[name].device = device
        self._accelerator = None if home.type == "cpu" else home
        self._written = self._counters()
        functions = {name: self.config.augment_of(name) for name in self.by_name}
        count, seed = self.config.views, self.config.seed
        self.views = {
            name: Views(count, function, seed) for name, function in functions.items() if function is not None
        }

    def weights_were_written(self) -> bool:
        """Whether a weight or buffer of a frozen encoder was written to, or replaced, since the caches were opened.

        Told by torch's counters, which miss what is written through ``.data``.
        """
        return self._written != self._counters()

    def fill(
        self,
        collate: EncoderCollate,
        objects: Sequence[Any],
        name: str,
        sides: Sequence[int] | None,
        training: bool,
        numbers: ItemNumbers | None,
    ) -> dict[str, FillReport]:
        """Encode the items that the caches lack; see :meth:`simtrain.cache.CachedModel.fill`."""
        reports = {}
        for encoder, cache in self.by_name.items():
            items: Any = collate.marked(encoder, objects, sides)
            known = None if cache.is_persistent else numbers
            if training and encoder in self.views:
                items = ViewItems(objects, items, sides, collate.side_fns.get(encoder), self.views[encoder], known)
            elif known is not None:
                items = CountedItems(items, known)
            reports[encoder] = cache.fill(
                items, batch_size=self.config.batch_size, num_workers=self.config.num_workers, name=name
            )
        self._written = self._counters()  # what encoding itself writes, a count of its own say, is no change
        return reports

    def stand_ins(self) -> dict[str, CachedEncoder]:
        """Encoder name → what reads from its cache in its place."""
        return {
            name: BoundaryEncoder(cache) if isinstance(cache, (StateCache, DenseStateCache)) else CachedEncoder(cache)
            for name, cache in self.by_name.items()
        }

    def with_views(self, collate: EncoderCollate) -> EncoderCollate:
        """A collate function, changed to give the rows of all versions of an item."""
        for name, views in self.views.items():
            collate.collate_fns[name] = ViewLookup(self.by_name[name].row_lookup, views.prefix, views.count)
        return collate

    def drawn(self, features: dict[str, Any], epoch: int) -> dict[str, Any]:
        """Features with one view of each item in the place of all.

        Raises:
            CacheError: The batch comes from a loader that was prepared for validation.
        """
        for name, made in self.views.items():
            if features[name].ndim == 1:
                raise CacheError(
                    "a loader that was prepared with training=False has no views to train on; prepare it again with "
                    "setup_dataloader(loader)"
                )
            features = {**features, name: drawn_rows(features[name], made.seed, epoch)}
        return features

    def are_looked_up_by(self, collate: EncoderCollate) -> bool:
        """Whether all rows that a collate function looks up are those of these caches."""
        functions = {name: function for name, function in collate.collate_fns.items() if name in self.by_name}
        indexes = {name: _index_of(function) for name, function in functions.items()}
        return all(index is None or index is self.by_name[name].store.index for name, index in indexes.items())

    @property
    def are_persistent(self) -> bool:
        """Whether one of them outlives this process."""
        return any(cache.is_persistent for cache in self.by_name.values())

    def _counters(self) -> list[tuple[int, int]]:
        whole = [cache.encoder for cache in self.by_name.values() if not cache.encoder.trainable]
        tensors = [tensor for encoder in whole for tensor in (*encoder.parameters(), *encoder.buffers())]
        return [(id(tensor), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]

    def _open(self, name: str, encoder: Encoder, kind: CacheType, device: torch.device, at_boundary: bool) -> None:
        fingerprint = boundary_fingerprint if at_boundary else encoder_fingerprint
        place = f" on {device}" if kind is CacheType.GPU else ""
        identity = f"{fingerprint(encoder)} in {kind.value}{place}"
        if self._fingerprints.get(name) != identity:
            open_one: Callable[..., EmbeddingCache] = open_states if at_boundary else open_cache
            self.by_name[name] = open_one(name, encoder, self.config, kind, device)
            self._fingerprints[name] = identity
            # Another store of an equal encoder has other rows for its items.
            self.identities[name] = f"{identity}, store {next(_STORES)}"


def _index_of(function: Any) -> KeyIndex | None:
    while function is not None and not isinstance(function, RowLookup):
        function = getattr(function, "lookup", None)  # of views, and of numbered items
    return None if function is None else function.index
