"""Loaders of similarity samples.

They are plain :class:`torch.utils.data.DataLoader` s. Until a model has set one up, a batch is a
:class:`SampleBatch` of raw objects and targets, which every model accepts; ``model.setup_dataloader(loader)``
gives a copy whose workers do the encoders' collating.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from simtrain.data.batches import GROUPS, LAYOUTS, PAIRS, TRIPLETS, BatchLayout, collate_samples
from simtrain.data.datasets import checked
from simtrain.data.numbered_samples import read_sample
from simtrain.data.resumable_loader import ResumableDataLoader
from simtrain.data.samplers import ShuffleSampler, SimilaritySampler
from simtrain.data.samplers.dealing import Remainder
from simtrain.data.samples import SimilarityGroupSample, SimilarityPairSample, SimilarityTripletSample
from simtrain.errors import DataError


class SimilarityDataLoader(ResumableDataLoader):
    """Base of the similarity loaders: takes what ``DataLoader`` takes, and lists or other sequences of samples.

    ``shuffle=True`` uses a :class:`~simtrain.data.ShuffleSampler`: the order is drawn from torch's global generator,
    or from ``generator``, when the loader is made, and is another one in each epoch. Several processes share it, each
    sample going to one of them. Copies of a loader share its sampler, hence the epoch.

    Args:
        dataset: Data set or sequence of samples of this loader's kind.
        batch_size: Samples a batch.
        **options: Any other argument of :class:`torch.utils.data.DataLoader`; ``collate_fn`` is set here.

    Raises:
        DataError: The data set is empty, its first sample is of another kind, or the sampler is for other batches or
            another number of samples.
    """

    sample_type: type
    layout: BatchLayout

    def __init__(self, dataset: Any, batch_size: int | None = 1, **options: Any) -> None:
        if isinstance(dataset, (list, tuple)):
            dataset = checked(dataset, self.sample_type)
        elif not isinstance(dataset, IterableDataset):
            self._check_first(dataset)
        if isinstance(options.get("batch_sampler"), SimilaritySampler):
            raise DataError(
                f"a {type(options['batch_sampler']).__name__} gives single samples in the order of batches; pass it as "
                f"sampler=…, with its batch_size, not as batch_sampler"
            )
        options.setdefault("collate_fn", collate_samples)
        if options.get("shuffle") and not isinstance(dataset, IterableDataset):
            options.update(shuffle=False, sampler=_shuffle(dataset, batch_size, options))
        super().__init__(dataset, batch_size=batch_size, **options)

    def _check_first(self, dataset: Any) -> None:
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise DataError(f"a loader takes a data set or a list of samples, got {type(dataset).__name__}")
        if len(dataset) == 0:
            raise DataError(f"a data set needs at least one {self.sample_type.__name__}, got none")
        if not isinstance(dataset[0], self.sample_type):
            raise DataError(
                f"{type(self).__name__} takes {self.sample_type.__name__}, "
                f"but the data set's first element is a {type(dataset[0]).__name__}"
            )


class PairsSimilarityDataLoader(SimilarityDataLoader):
    """Batches of :class:`SimilarityPairSample`: all queries of the batch, then all documents.

    Targets are ``pairs (n, 2)`` (rows of query and document), ``labels (n,)`` and ``subgroups (2n,)``.

    Example:
        >>> samples = [SimilarityPairSample("a", "b"), SimilarityPairSample("c", "d")]
        >>> loader = PairsSimilarityDataLoader(samples, batch_size=2)
        >>> next(iter(loader)).objects
        ['a', 'c', 'b', 'd']
    """

    sample_type = SimilarityPairSample
    layout = PAIRS


class GroupSimilarityDataLoader(SimilarityDataLoader):
    """Batches of :class:`SimilarityGroupSample`. Targets are ``groups (n,)``.

    Example:
        >>> samples = [SimilarityGroupSample("a", 1), SimilarityGroupSample("b", 2)]
        >>> loader = GroupSimilarityDataLoader(samples, batch_size=2)
        >>> next(iter(loader)).targets["groups"].tolist()
        [1, 2]
    """

    sample_type = SimilarityGroupSample
    layout = GROUPS


class TripletSimilarityDataLoader(SimilarityDataLoader):
    """Batches of :class:`SimilarityTripletSample`: all anchors, all positives, then the negatives of each sample.

    Samples may have different numbers of negatives. Targets suit pairwise losses (``pairs``: each anchor with its
    positive, labelled 1, and with its negatives, labelled 0; ``labels``; ``subgroups``) and group losses (``groups``:
    an anchor and its positive share one, each negative has its own).

    Example:
        >>> samples = [SimilarityTripletSample("a", "b", ["x", "y"]), SimilarityTripletSample("c", "d", ["z"])]
        >>> batch = next(iter(TripletSimilarityDataLoader(samples, batch_size=2)))
        >>> batch.objects, batch.targets["pairs"].tolist()
        (['a', 'c', 'b', 'd', 'x', 'y', 'z'], [[0, 2], [1, 3], [0, 4], [0, 5], [1, 6]])
    """

    sample_type = SimilarityTripletSample
    layout = TRIPLETS


def _shuffle(dataset: Any, batch_size: int | None, options: Mapping[str, Any]) -> ShuffleSampler:
    if options.get("sampler") is not None or options.get("batch_sampler") is not None:
        raise DataError("shuffle=True and a sampler exclude each other: the sampler makes the order")
    generator = options.get("generator")
    seed = None if generator is None else int(torch.randint(2**31, (), generator=generator))
    # What cannot fill a batch is left out already; else nothing may be lost.
    remainder: Remainder = "drop" if options.get("drop_last") else "share"
    return ShuffleSampler(dataset, seed, batch_size=batch_size, remainder=remainder)


def check_collate(loader: DataLoader[Any]) -> None:
    """Raise a :class:`DataError` for a plain ``DataLoader`` that would stack samples with torch's own collate."""
    dataset: Any = loader.dataset
    if loader.collate_fn is not default_collate or isinstance(dataset, IterableDataset) or not len(dataset):
        return
    if isinstance(dataset[0], tuple(LAYOUTS)):
        raise DataError(
            "torch's default collate function cannot make a batch of samples; use PairsSimilarityDataLoader, "
            "GroupSimilarityDataLoader or TripletSimilarityDataLoader, or pass collate_fn=simtrain.data.collate_samples"
        )


def with_collate(loader: DataLoader[Any], collate_fn: Callable[[Any], Any]) -> DataLoader[Any]:
    """Copy of a loader with another collate function; the given one stays as it is."""
    twin = copy.copy(loader)
    # A copied loader must not share the live worker processes of the original, nor its place.
    twin._iterator = None
    if isinstance(twin, ResumableDataLoader):
        twin.forget()
    twin.collate_fn = collate_fn
    return twin


def read_samples(dataset: Dataset[Any] | Iterable[Any]) -> list[Any]:
    """All samples of a data set, map-style or iterable, in order.

    Raises:
        DataError: One cannot be read; the message names its row.
    """
    if hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"):
        indexed = cast("Any", dataset)
        return [read_sample(indexed, index) for index in range(len(indexed))]
    samples: Iterator[Any] = iter(cast("Iterable[Any]", dataset))
    return list(samples)
