"""Loaders for a model that reads from caches: of rows where every encoder is cached, else of rows beside batches."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from simtrain.cache.indexed_loader import RowsCollate, indexed_loader
from simtrain.cache.item_numbers import ItemNumbers, NumberedItemsCollate, NumberedObjects
from simtrain.cache.open_caches import OpenCaches
from simtrain.data.batches import layout_of
from simtrain.data.collate import EncoderCollate
from simtrain.data.loaders import read_samples, with_collate
from simtrain.errors import CacheError

_BEFORE = (
    "when its loader was prepared; prepare it again after a change (setup_dataloader, or a trainer's "
    "reload_dataloaders_every_n_epochs), or, for data that change while they are trained on, switch the cache off "
    "(CacheType.NONE)"
)


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
        assert self.numbers is not None
        # The collate functions of cached encoders look rows up.
        look_ups: dict[str, Any] = collate.collate_fns
        rows = {
            name: look_up(collate.marked(name, self.objects, self.sides), self.numbers)
            for name, look_up in look_ups.items()
        }
        labels = self.layout.labels(self.samples)
        described = RowsCollate(rows, labels, self.layout, len(self.samples), identities, known)
        described.second_look = SecondLook(self.loader.dataset, collate, described, self.numbers.source)
        described.second_look()
        return indexed_loader(self.loader, described)


class SecondLook:
    """Reads the first and the last sample of a data set again: what changes by itself mostly changes everywhere.

    Args:
        dataset: A map-style data set of samples.
        collate: The collate function of an encoder that is cached, for each encoder.
        known: What was found at the first reading.
        source: Token of the data set.
    """

    def __init__(self, dataset: Any, collate: EncoderCollate, known: RowsCollate, source: bytes) -> None:
        self.dataset, self.collate, self.known, self.source = dataset, collate, known, source

    def __call__(self) -> None:
        """Compare.

        Raises:
            CacheError: The data set gives other items than before, as random transforms do.
        """
        size, layout = self.known.size, self.known.layout
        if len(self.dataset) != size:
            raise CacheError(f"the data set has {len(self.dataset)} samples, and had {size} {_BEFORE}")
        read = [0, size - 1][:size]
        again = [self.dataset[row] for row in read]
        picked = torch.tensor(read)
        labels = {name: label[picked] for name, label in self.known.labels.items()}
        places = layout.rows(picked, labels, size)
        numbers = ItemNumbers.of(self.source, [read[place] for place in layout.owners(again)], size)
        objects, sides = layout.objects(again), layout.sides(again)
        look_ups: dict[str, Any] = self.collate.collate_fns
        for name, look_up in look_ups.items():
            rows = look_up(self.collate.marked(name, objects, sides), numbers)
            known = self.known.rows[name][places]
            if rows.shape != known.shape or not torch.equal(rows, known):
                raise CacheError(f"the data set gives another item {read[0]} or {read[-1]} than {_BEFORE}")


def _with_dataset(loader: DataLoader[Any], dataset: Any) -> DataLoader[Any]:
    twin = copy.copy(loader)
    twin.__dict__["dataset"] = dataset  # a loader refuses to have its data set set
    return twin
