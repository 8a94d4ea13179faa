"""A similarity model whose frozen encoders run once for each distinct item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import DataLoader

from simtrain.cache.config import CacheConfig, CacheType
from simtrain.cache.embedding_cache import EmbeddingCache, FillReport
from simtrain.cache.indexed_loader import RowsCollate
from simtrain.cache.item_keys import UnidentifiedItemError
from simtrain.cache.item_numbers import ItemNumbers
from simtrain.cache.open_caches import OpenCaches
from simtrain.cache.resolving import resolve
from simtrain.cache.row_loaders import LoadedItems
from simtrain.data.batches import SampleBatch, collate_samples, layout_of
from simtrain.data.collate import EncoderCollate
from simtrain.data.loaders import check_collate, read_samples, with_collate
from simtrain.data.sides import DOCUMENT, QUERY
from simtrain.encoders import Encoder
from simtrain.errors import CacheError
from simtrain.heads import EmptyHead
from simtrain.models import SimilarityModel
from simtrain.models.joined_encoders import joint_size
from simtrain.models.placement import device_of

OTHER_ROWS = (
    "a loader was prepared with setup_dataloader(), and an encoder has changed since, or it is another model's: its "
    "rows belong to other embeddings; call setup_dataloader() again. If all that changed is an attribute that does not "
    "matter, such as a counter, name it in the encoder's cache_ignores"
)


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
        self._open_caches = OpenCaches(self._config)
        self._is_open = False
        self._device: torch.device | str = "cpu"
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
        return self._open_caches.with_views(self.collate)

    def open(self, device: torch.device | str = "cpu") -> None:
        """Open the caches for the encoders as they are now; those of unchanged encoders stay open.

        Args:
            device: Device to encode on.
        """
        self._open_caches.open(self._encoders(), device)
        self._device = device
        self.model = self._reading_from_caches(self._original.head)
        self._is_open = True

    def with_head(self, head: nn.Module) -> CachedModel:
        """The same encoders and caches under another head."""
        twin = CachedModel(SimilarityModel(self._encoders(), head), self._config)
        twin._open_caches, twin._device = self._open_caches, self._device
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
        numbers: ItemNumbers | None = None,
    ) -> dict[str, FillReport]:
        """Encode the items that the caches lack.

        Args:
            objects: Raw items.
            name: What the items are, for messages.
            sides: Code of each one's side (:mod:`simtrain.data.sides`); None for items without sides.
            training: Encode the items' views too, where there are any.
            numbers: The items' numbers in their data set, by which a cache in memory knows those without content.

        Returns:
            What was reused and what was encoded, by encoder.

        Raises:
            CacheError: An item has no content to go by, and there is no key extractor; in memory, and no number.
        """
        if self._open_caches.weights_were_written():  # what is encoded now belongs to other caches
            self.open(self._device)
        self.reports.update(self._open_caches.fill(self.collate, objects, name, sides, training, numbers))
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
        try:
            self.fill(items, sides=None if side is None else [side] * len(items))
        except UnidentifiedItemError:
            if self._open_caches.are_persistent:
                raise
            return self._original  # nothing to know these items by, and no data set to count them in
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
        if not self._caches:
            return with_collate(loader, self.collate)
        loaded = LoadedItems(loader, self._open_caches)
        self.fill(loaded.objects, sides=loaded.sides, training=training, numbers=loaded.numbers)
        collate = self.training_collate if training else self.collate
        every_encoder_is_cached = set(self._caches) == set(self._encoders())
        rows = loaded.rows(collate, dict(self._open_caches.identities)) if every_encoder_is_cached else None
        return loaded.collating(collate) if rows is None else rows

    def drawn(self, features: dict[str, Any], training: bool, epoch: int | None = None) -> dict[str, Any]:
        """Features with one view of each item in the place of all, for a training batch; else the items themselves.

        Args:
            features: A collated batch.
            training: Whether it is trained on.
            epoch: Number of the epoch. Default: :attr:`epoch`.

        Raises:
            CacheError: The batch comes from a loader that was prepared for validation.
        """
        if not self._open_caches.views or not training:
            return features
        epoch = self.epoch if epoch is None else epoch
        moment, self._n_drawn = self._n_drawn if epoch is None else epoch, self._n_drawn + 1
        return self._open_caches.drawn(features, moment)

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
        if self._caches:
            given = batch if isinstance(batch, SampleBatch) else collate_samples(batch)
            self.fill(given.objects, "a batch", given.sides, training)

    def open_for(self, loaders: Any, device: torch.device | str = "cpu", training: bool = False) -> None:
        """Open the caches and fill them with the items of a loader, or of a list of them, that is used as it is.

        Raises:
            CacheError: A loader was prepared for encoders that have changed since.
            DataError: A loader's collate function cannot make a batch of samples.
        """
        self.open(device)
        for loader in _listed(loaders):
            if isinstance(loader, DataLoader):
                self._check_or_fill(loader, training)

    def keep_up(self, loaders: Any, device: torch.device | str, epoch: int) -> None:
        """Notice, as an epoch of training begins, weights and data that have changed since the loader was prepared.

        Looking at the data costs two readings; it is done in the epochs 1, 2, 4, 8 and so on.

        Args:
            loaders: What is trained on, a loader or a list of them.
            device: Device to encode on.
            epoch: Number of the epoch, from 0.

        Raises:
            CacheError: They have, and the loader was prepared for what was before.
        """
        if self._is_open and self._open_caches.weights_were_written():
            self.open_for(loaders, device, training=True)
        if epoch & (epoch - 1) or not epoch:
            return
        for loader in _listed(loaders):
            collate = getattr(loader, "collate_fn", None)
            if isinstance(collate, RowsCollate) and collate.second_look is not None:
                collate.second_look()

    def _check_or_fill(self, loader: DataLoader[Any], training: bool) -> None:
        check_collate(loader)
        if isinstance(loader.collate_fn, RowsCollate):
            if loader.collate_fn.identities != self._open_caches.identities:
                raise CacheError(OTHER_ROWS)
        elif isinstance(loader.collate_fn, EncoderCollate):
            if not self._open_caches.are_looked_up_by(loader.collate_fn):
                raise CacheError(OTHER_ROWS)
        elif self._caches:
            samples = read_samples(loader.dataset)
            layout = layout_of(samples)
            try:
                self.fill(layout.objects(samples), sides=layout.sides(samples), training=training)
            except UnidentifiedItemError as error:
                raise CacheError(
                    f"{error}; or train on setup_dataloader(loader), which knows items in memory by their number"
                ) from error

    def _reading_from_caches(self, head: nn.Module) -> SimilarityModel:
        if not self._caches:
            return self._original
        model = SimilarityModel({**self._encoders(), **self._open_caches.stand_ins()}, head)
        model.training = self._original.training
        return model

    @property
    def _caches(self) -> dict[str, EmbeddingCache]:
        return self._open_caches.by_name

    def _encoders(self) -> dict[str, Encoder]:
        return {name: cast("Encoder", encoder) for name, encoder in self._original.encoders.items()}


def _listed(loaders: Any) -> list[Any]:
    return list(loaders) if isinstance(loaders, (list, tuple)) else [loaders]
