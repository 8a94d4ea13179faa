"""A similarity model whose frozen encoders run once for each distinct item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from simtrain.cache.boundary import BoundaryEncoder
from simtrain.cache.cached_encoder import CachedEncoder
from simtrain.cache.config import CacheConfig, CacheType
from simtrain.cache.embedding_cache import EmbeddingCache, FillReport
from simtrain.cache.fingerprint import encoder_fingerprint
from simtrain.cache.indexed_loader import RowsCollate, indexed_loader
from simtrain.cache.opening import open_cache
from simtrain.cache.resolving import boundary_names, resolve
from simtrain.cache.state_cache import StateCache, boundary_fingerprint, open_states
from simtrain.cache.views import ViewItems, ViewLookup, Views, drawn_rows
from simtrain.data.batches import BatchLayout, SampleBatch, layout_of
from simtrain.data.collate import EncoderCollate
from simtrain.data.loaders import check_collate, read_samples, with_collate
from simtrain.data.sides import DOCUMENT, QUERY
from simtrain.encoders import Encoder
from simtrain.errors import CacheError
from simtrain.heads import EmptyHead
from simtrain.models import SimilarityModel
from simtrain.models.joined_encoders import joint_size
from simtrain.models.placement import device_of


class CachedModel:
    """Reads the frozen encoders' embeddings from caches; head and trainable encoders are the given model's own.

    Use it to embed a collection again and again, with other heads or while one is trained. Training does so by
    itself where a model has a :class:`CacheConfig`.

    Args:
        model: The model; it is not changed, and what is trained in it is seen here.
        config: What to cache, and where. None caches nothing.

    Attributes:
        model: The model to call on collated batches: the given one until a cache is open, then one that takes the
            row numbers of cached embeddings.

    Raises:
        ConfigError: The config names an unknown encoder, or one that is trained.

    Example:
        >>> from simtrain.encoders import PrecomputedEncoder
        >>> from simtrain.heads import EmptyHead
        >>> cached = CachedModel(SimilarityModel(PrecomputedEncoder(2), EmptyHead(2)), CacheConfig(CacheType.CPU))
        >>> cached.encode([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]).shape
        (3, 2)
        >>> cached.reports["default"].n_encoded
        2
    """

    def __init__(self, model: SimilarityModel, config: CacheConfig | None) -> None:
        self._original = model
        self._config = config or CacheConfig(CacheType.NONE)
        self._caches: dict[str, EmbeddingCache] = {}
        self._identities: dict[str, str] = {}
        self._is_open = False
        self._views: dict[str, Views] = {}
        self._n_drawn = 0
        self.model = model
        #: Number of the epoch whose views are drawn, where no trainer counts; None draws anew for every batch.
        self.epoch: int | None = None
        #: What the last filling came to, by encoder.
        self.reports: dict[str, FillReport] = {}
        # A wrong name, or a cache for a trainable encoder, is an error now and not when training starts.
        # Asked as if for a GPU: whether there is one is known when training starts.
        resolve(self._config, self._encoders(), torch.device("cuda"))

    @property
    def collate(self) -> EncoderCollate:
        """Collate function for loaders: samples → features for :attr:`model`, and targets."""
        return self.model.get_collate()

    @property
    def training_collate(self) -> EncoderCollate:
        """:attr:`collate` for training: the rows of all versions of an item, for encoders with views."""
        collate = self.collate
        for name, views in self._views.items():
            collate.collate_fns[name] = ViewLookup(self._caches[name].row_lookup, views.prefix, views.count)
        return collate

    def open(self, device: torch.device | str = "cpu") -> None:
        """Open the caches for the encoders as they are now; those of unchanged encoders stay open.

        Args:
            device: Device to encode on.
        """
        encoders = self._encoders()
        types = resolve(self._config, encoders, torch.device(device))
        cut = boundary_names(self._config, encoders)
        for name, kind in types.items():
            if kind is CacheType.NONE:
                continue
            at_boundary = name in cut
            fingerprint = boundary_fingerprint if at_boundary else encoder_fingerprint
            identity = f"{fingerprint(encoders[name])} on {device}"
            if self._identities.get(name) != identity:
                opened = open_states if at_boundary else open_cache
                self._caches[name] = opened(name, encoders[name], self._config, kind, device)
                self._identities[name] = identity
        self._views = self._asked_views()
        self.model = self._reading_from_caches(self._original.head)
        self._is_open = True

    def with_head(self, head: nn.Module) -> CachedModel:
        """The same encoders and caches under another head."""
        twin = CachedModel(SimilarityModel(self._encoders(), head), self._config)
        twin._caches, twin._identities, twin._views = self._caches, self._identities, self._views
        twin.model = twin._reading_from_caches(head)
        return twin

    def without_head(self) -> CachedModel:
        """The same encoders and caches with nothing on top."""
        return self.with_head(EmptyHead(joint_size(self._encoders())))

    def fill(
        self,
        objects: Sequence[Any],
        name: str = "data",
        sides: Sequence[int] | None = None,
        training: bool = False,
    ) -> dict[str, FillReport]:
        """Encode the items that the caches lack.

        Args:
            objects: Raw items.
            name: What the items are, for messages.
            sides: Code of each one's side (:mod:`simtrain.data.sides`); None for items without sides.
            training: Encode the items' views too, where there are any.

        Returns:
            What was reused and what was encoded, by encoder.
        """
        collate, views = self.collate, self._views if training else {}
        for encoder, cache in self._caches.items():
            items: Any = collate.marked(encoder, objects, sides)
            if encoder in views:
                items = ViewItems(objects, items, sides, collate.side_fns.get(encoder), views[encoder])
            self.reports[encoder] = cache.fill(
                items,
                batch_size=self._config.batch_size,
                num_workers=self._config.num_workers,
                name=name,
            )
        return self.reports

    def encode(self, inputs: Sequence[Any], **options: Any) -> Any:
        """Embed a sequence of raw items; takes the options of :meth:`SimilarityModel.encode`."""
        items = list(inputs)
        return self._filled(items, None).encode(items, **options)

    def encode_query(self, inputs: Sequence[Any], **options: Any) -> Any:
        """Embed what is searched with; see :meth:`SimilarityModel.encode_query`."""
        items = list(inputs)
        return self._filled(items, QUERY).encode_query(items, **options)

    def encode_document(self, inputs: Sequence[Any], **options: Any) -> Any:
        """Embed what is searched in; see :meth:`SimilarityModel.encode_document`."""
        items = list(inputs)
        return self._filled(items, DOCUMENT).encode_document(items, **options)

    def _filled(self, items: list[Any], side: int | None) -> SimilarityModel:
        self.open(device_of(self._original))
        self.fill(items, sides=None if side is None else [side] * len(items))
        return self.model

    def prepare(self, loader: DataLoader[Any], training: bool = True) -> DataLoader[Any]:
        """Fill the caches for a loader, and give a copy of it whose batches suit :attr:`model`.

        Args:
            loader: A loader of samples; it stays as it is.
            training: Whether it may be trained on: then the views of its items are encoded too.

        Returns:
            A loader of ``(features, targets)``. Where every encoder is cached, its features are row numbers and no
            item is read again.
        """
        if isinstance(loader.collate_fn, RowsCollate):  # prepared before
            self._check_or_fill(loader, training)
            return loader
        collate = self.training_collate if training else self.collate
        if not self._caches:
            return with_collate(loader, collate)
        samples = read_samples(loader.dataset)
        layout = layout_of(samples)
        objects, sides = layout.objects(samples), layout.sides(samples)
        self.fill(objects, sides=sides, training=training)
        every_encoder_is_cached = set(self._caches) == set(self._encoders())
        if not every_encoder_is_cached or loader.batch_sampler is None or isinstance(loader.dataset, IterableDataset):
            return with_collate(loader, collate)
        known = None if collate.meta is None else collate.meta(objects, sides)
        if isinstance(known, list):  # for a head of quaterion-models, which takes a dict for each item
            return with_collate(loader, collate)
        self._check_repeatable(loader.dataset, layout)
        # The collate functions of cached encoders look rows up.
        rows = {name: look_up(collate.marked(name, objects, sides)) for name, look_up in collate.collate_fns.items()}
        labels = layout.labels(samples)
        return indexed_loader(loader, RowsCollate(rows, labels, layout, len(samples), dict(self._identities), known))

    def drawn(self, features: dict[str, Any], training: bool, epoch: int | None = None) -> dict[str, Any]:
        """Features with one view of each item in the place of all, for a training batch; else the items themselves.

        Args:
            features: A collated batch.
            training: Whether it is trained on.
            epoch: Number of the epoch. Default: :attr:`epoch`.

        Raises:
            CacheError: The batch comes from a loader that was prepared for validation.
        """
        if not self._views or not training:
            return features
        epoch = self.epoch if epoch is None else epoch
        moment, self._n_drawn = self._n_drawn if epoch is None else epoch, self._n_drawn + 1
        for name, made in self._views.items():
            if features[name].ndim == 1:
                raise CacheError(
                    "a loader that was prepared with training=False has no views to train on; prepare it again with "
                    "setup_dataloader(loader)"
                )
            features = {**features, name: drawn_rows(features[name], made.seed, moment)}
        return features

    def fill_batch(self, batch: Any, device: torch.device | str = "cpu", training: bool = False) -> None:
        """Encode what the caches lack of a batch that is not collated yet; other batches are left alone.

        Args:
            batch: Samples, or a :class:`~simtrain.data.SampleBatch`.
            device: Device to encode on, where the caches are not open yet: they are opened now.
            training: Encode the items' views too, where there are any.
        """
        if not isinstance(batch, (SampleBatch, list)):
            return
        if not self._is_open:
            self.open(device)
        if self._caches and isinstance(batch, SampleBatch):
            self.fill(batch.objects, "a batch", batch.sides, training)
        elif self._caches:
            layout = layout_of(batch)
            self.fill(layout.objects(batch), "a batch", layout.sides(batch), training)

    def open_for(self, loaders: Any, device: torch.device | str = "cpu", training: bool = False) -> None:
        """Open the caches and fill them with the items of a loader, or of a list of them, that is used as it is.

        Raises:
            CacheError: A loader was prepared for encoders that have changed since.
            DataError: A loader's collate function cannot make a batch of samples.
        """
        self.open(device)
        for loader in loaders if isinstance(loaders, (list, tuple)) else [loaders]:
            if isinstance(loader, DataLoader):
                self._check_or_fill(loader, training)

    def _check_or_fill(self, loader: DataLoader[Any], training: bool) -> None:
        check_collate(loader)
        if isinstance(loader.collate_fn, RowsCollate):
            if loader.collate_fn.identities != self._identities:
                raise CacheError(
                    "a loader was prepared with setup_dataloader(), and an encoder has changed since: its rows belong "
                    "to other embeddings; call setup_dataloader() again after the last change"
                )
        elif self._caches and not isinstance(loader.collate_fn, EncoderCollate):
            samples = read_samples(loader.dataset)
            layout = layout_of(samples)
            self.fill(layout.objects(samples), sides=layout.sides(samples), training=training)

    def _reading_from_caches(self, head: nn.Module) -> SimilarityModel:
        if not self._caches:
            return self._original
        replaced = {
            name: BoundaryEncoder(cache) if isinstance(cache, StateCache) else CachedEncoder(cache)
            for name, cache in self._caches.items()
        }
        model = SimilarityModel({**self._encoders(), **replaced}, head)
        model.training = self._original.training
        return model

    def _check_repeatable(self, dataset: Any, layout: BatchLayout) -> None:
        # A random transform gives another object at the second reading, for which the cache has no row and says so.
        again = [dataset[0], dataset[len(dataset) - 1]]
        self.collate.features(layout.objects(again), layout.sides(again))

    def _asked_views(self) -> dict[str, Views]:
        functions = {name: self._config.augment_of(name) for name in self._caches}
        count, seed = self._config.views, self._config.seed
        return {name: Views(count, function, seed) for name, function in functions.items() if function is not None}

    def _encoders(self) -> dict[str, Encoder]:
        return {name: cast("Encoder", encoder) for name, encoder in self._original.encoders.items()}
