"""Loaders of several processes: each reads its own part of the data."""

from __future__ import annotations

from typing import Any

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from simtrain.data.loaders import with_collate


def for_process(loader: DataLoader[Any], rank: int, world_size: int) -> DataLoader[Any]:
    """A loader of one process's part of the data, in batches of the same size.

    A loader in the data set's order or a random one gets a ``DistributedSampler`` of that order; everything else of it
    stays: collating, workers, pinning. A stream, and a sampler of another kind, which may know of processes itself,
    are left alone.

    Args:
        loader: The loader; it is not changed.
        rank: Number of the process.
        world_size: Number of processes.

    Returns:
        The loader itself where nothing is to be done, else a copy.

    Example:
        >>> loader = DataLoader(list(range(6)), batch_size=2)
        >>> [batch.tolist() for batch in for_process(loader, rank=1, world_size=2)]
        [[1, 3], [5]]
        >>> for_process(loader, 0, 1) is loader
        True
    """
    given = loader.batch_sampler
    order = loader.sampler if given is None else getattr(given, "sampler", None)
    plain = type(order) in (RandomSampler, SequentialSampler) and (given is None or type(given) is BatchSampler)
    if world_size < 2 or isinstance(loader.dataset, IterableDataset) or not plain:
        return loader
    shuffle = type(order) is RandomSampler
    sampler: DistributedSampler[Any] = DistributedSampler(loader.dataset, world_size, rank, shuffle=shuffle)
    twin = with_collate(loader, loader.collate_fn)
    batches = None if given is None else BatchSampler(sampler, given.batch_size, given.drop_last)  # type: ignore[attr-defined]
    # A loader refuses to have its samplers set.
    twin.__dict__.update(sampler=sampler, batch_sampler=batches)
    return twin
