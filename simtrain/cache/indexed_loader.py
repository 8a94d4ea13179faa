"""Loaders for models whose encoders are all cached: batches are row numbers, no item is read again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset

from simtrain.data.batches import BatchLayout, Targets
from simtrain.data.collate import META
from simtrain.data.resumable_loader import ResumableDataLoader
from simtrain.data.samplers import SimilaritySampler


class SampleNumbers(Dataset[int]):
    """Data set whose samples are their own numbers."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        return index

    def __getitems__(self, indices: Sequence[int]) -> Sequence[int]:
        """A whole batch at once: the loader then makes no call per item."""
        return indices


class RowsCollate:
    """Sample numbers → cache rows by encoder, and targets.

    Args:
        rows: Encoder name → cache row of each object of the data set, in the layout's order.
        labels: Label tensors of the whole data set, one row a sample.
        layout: How samples lie in a batch.
        size: Number of samples in the data set.
        identities: Encoder name → identity of the encoder whose rows these are.
        meta: What the head is told of each object of the data set, as codes by key; None for nothing.
    """

    def __init__(
        self,
        rows: Mapping[str, Tensor],
        labels: Mapping[str, Tensor],
        layout: BatchLayout,
        size: int,
        identities: Mapping[str, str],
        meta: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.rows, self.labels, self.layout, self.size = rows, labels, layout, size
        self.identities, self.meta = dict(identities), meta
        #: Raises an error where the data set gives other items by now.
        self.second_look: Callable[[], None] | None = None
        # Where no item comes twice, the numbers of the objects are their rows.
        self._as_numbered = {name for name, own in rows.items() if torch.equal(own, torch.arange(len(own)))}

    def __call__(self, numbers: Sequence[int] | Tensor) -> tuple[dict[str, Any], Targets]:
        """Collate one batch."""
        picked = torch.as_tensor(numbers)
        labels = {name: label.index_select(0, picked) for name, label in self.labels.items()}
        objects = self.layout.rows(picked, labels, self.size)
        targets = self.layout.targets(labels)
        targets["items"] = objects
        features: dict[str, Any] = {
            name: objects if name in self._as_numbered else rows.index_select(0, objects)
            for name, rows in self.rows.items()
        }
        if self.meta is not None:
            features[META] = {key: codes.index_select(0, objects) for key, codes in self.meta.items()}
        return features, targets


class IndexedDataLoader(ResumableDataLoader):
    """A loader of cache rows: batches are tensors of sample numbers, and nothing is done for each sample.

    A sampler of simtrain gives the order of an epoch as one tensor; batches of any other sampler are lists of numbers,
    each made a tensor.
    """

    def _batches(self) -> Iterable[Any]:
        return _collated(self)


def _collated(loader: DataLoader[Any]) -> Iterator[Any]:
    # Torch's own iteration draws a seed for its workers first, which moves the generator that samplers draw from.
    torch.empty((), dtype=torch.int64).random_(generator=loader.generator)
    for numbers in _numbers(loader.batch_sampler):
        yield loader.collate_fn(numbers)


def _numbers(batches: Any) -> Iterable[Any]:
    sampler: Any = getattr(batches, "sampler", None)
    # A sampler of the user's own may give its numbers in another way.
    known = isinstance(sampler, SimilaritySampler) and type(sampler).__iter__ is SimilaritySampler.__iter__
    if known and type(batches) is BatchSampler:
        drawn: Iterable[Tensor] = sampler.batches(batches.batch_size, batches.drop_last)
        return drawn
    given: Iterable[Any] = iter(batches)
    return given


def indexed_loader(loader: DataLoader[Any], collate: RowsCollate) -> IndexedDataLoader:
    """Loader with the batches of another one, as row numbers.

    The sampler (hence shuffling, its generator and its order) is the given loader's own; copies of a loader share it.
    Workers are left out: there is nothing for them to do.

    Args:
        loader: A map-style loader with a batch sampler.
        collate: Turns the sample numbers of a batch into rows and targets.
    """
    batches: Any = loader.batch_sampler
    options: dict[str, Any] = {"batch_sampler": batches}
    if type(batches) is BatchSampler:
        # Its sampler is to be seen: a trainer of several processes replaces samplers that know nothing of them.
        options = {"sampler": batches.sampler, "batch_size": batches.batch_size, "drop_last": batches.drop_last}
    return IndexedDataLoader(
        SampleNumbers(collate.size),
        collate_fn=collate,
        generator=loader.generator,
        pin_memory=loader.pin_memory,
        **options,
    )
