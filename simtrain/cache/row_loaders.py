"""Loaders for a model that reads from caches: of rows where every encoder is cached, else of rows beside batches."""

from __future__ import annotations

import copy
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from simtrain.cache.indexed_loader import RowsCollate, indexed_loader
from simtrain.cache.item_numbers import ItemNumbers, NumberedItemsCollate, NumberedObjects
from simtrain.cache.open_caches import OpenCaches
from simtrain.data.batches import layout_of
from simtrain.data.collate import EncoderCollate
from simtrain.data.loaders import read_samples, with_collate


class LoadedItems:
    """All items of a loader's data set, read once.

    Args:
        loader: A loader of samples.
        caches: The caches that they are for.
    """

    def __init__(self, loader: DataLoader[Any], caches: OpenCaches) -> None:
        if isinstance(loader.dataset, NumberedObjects):  # prepared before
            loader = _with_dataset(loader, loader.dataset.dataset)
        self.loader = loader
        self.samples = read_samples(loader.dataset)
        self.layout = layout_of(self.samples)
        self.objects, self.sides = self.layout.objects(self.samples), self.layout.sides(self.samples)
        self.numbers: ItemNumbers | None = None
        if not isinstance(loader.dataset, IterableDataset):  # a stream has no numbers
            token = caches.sources.token(loader.dataset)
            self.numbers = ItemNumbers.of(token, self.layout.owners(self.samples), len(self.samples))

    def collating(self, collate: EncoderCollate) -> DataLoader[Any]:
        """A copy of the loader with batches of rows for cached encoders, and of whatever others take."""
        if self.numbers is None or not self.numbers.used:
            return with_collate(self.loader, collate)
        twin = with_collate(self.loader, NumberedItemsCollate(collate, self.numbers.source))
        return _with_dataset(twin, NumberedObjects(self.loader.dataset))

    def rows(self, collate: EncoderCollate, identities: dict[str, str]) -> DataLoader[Any] | None:
        """A loader of rows alone, for cached encoders; None where there can be none.

        Raises:
            CacheError: The data set gives other items at a second reading.
        """
        if self.loader.batch_sampler is None or isinstance(self.loader.dataset, IterableDataset):
            return None
        known = None if collate.meta is None else collate.meta(self.objects, self.sides)
        if isinstance(known, list):  # for a head of quaterion-models, which takes a dict for each item
            return None
        self._check_repeatable(collate)
        # The collate functions of cached encoders look rows up.
        look_ups: dict[str, Any] = collate.collate_fns
        rows = {
            name: look_up(collate.marked(name, self.objects, self.sides), self.numbers)
            for name, look_up in look_ups.items()
        }
        labels = self.layout.labels(self.samples)
        described = RowsCollate(rows, labels, self.layout, len(self.samples), identities, known)
        return indexed_loader(self.loader, described)

    def _check_repeatable(self, collate: EncoderCollate) -> None:
        # A random transform gives another object at the second reading, for which the cache has no row and says so.
        assert self.numbers is not None
        dataset: Any = self.loader.dataset
        read = [0, len(dataset) - 1][: len(dataset)]
        again = [dataset[row] for row in read]
        owners = [read[place] for place in self.layout.owners(again)]
        numbers = ItemNumbers.of(self.numbers.source, owners, len(dataset))
        objects, sides = self.layout.objects(again), self.layout.sides(again)
        look_ups: dict[str, Any] = collate.collate_fns
        for name, look_up in look_ups.items():
            look_up(collate.marked(name, objects, sides), numbers)


def _with_dataset(loader: DataLoader[Any], dataset: Any) -> DataLoader[Any]:
    twin = copy.copy(loader)
    twin.__dict__["dataset"] = dataset  # a loader refuses to have its data set set
    return twin
