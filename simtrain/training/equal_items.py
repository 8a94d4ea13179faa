"""Which items of a loader's data set are equal, so that an evaluation counts each once."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from simtrain.cache.indexed_loader import RowsCollate
from simtrain.cache.views import own_rows
from simtrain.data.batches import layout_of
from simtrain.data.item_numbers import item_numbers
from simtrain.data.loaders import read_samples
from simtrain.data.samples import SimilarityPairSample, SimilarityTripletSample

#: Items that are equal when they look equal, and cheap to compare. Of others each counts as one.
COMPARED = (str, bytes, int, float, tuple, Path)


def equal_items(loader: Any) -> Int64[Tensor, " items"] | None:
    """For each item number of a loader's pairs or triplets, that of the first item equal to it.

    Args:
        loader: Any loader; numbers are those of the target ``items`` of its batches.

    Returns:
        None where items cannot be compared, or need not be: those of groups are all searched.

    Example:
        >>> from simtrain.data import PairsSimilarityDataLoader
        >>> samples = [SimilarityPairSample("q", "d"), SimilarityPairSample("r", "d")]
        >>> equal_items(PairsSimilarityDataLoader(samples, batch_size=2))
        tensor([0, 1, 2, 2])
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    if isinstance(loader.collate_fn, RowsCollate):
        return _equal_rows(loader.collate_fn)
    dataset: Any = loader.dataset
    dataset = getattr(dataset, "dataset", dataset) if type(dataset).__name__ == "NumberedObjects" else dataset
    first = dataset[0] if len(dataset) else None
    if not isinstance(first, (SimilarityPairSample, SimilarityTripletSample)):
        return None
    if not all(isinstance(item, COMPARED) for item in layout_of([first]).objects([first])):
        return None
    samples = read_samples(dataset)
    layout = layout_of(samples)
    objects, numbers = layout.objects(samples), item_numbers(layout.owners(samples), len(samples)).tolist()
    sides = layout.sides(samples) or [0] * len(objects)
    same = torch.arange(max(numbers) + 1)
    known: dict[Hashable, int] = {}
    for item, side, number in zip(objects, sides, numbers, strict=True):
        same[number] = known.setdefault((side, item), number)
    return same


def _equal_rows(collate: RowsCollate) -> Tensor | None:
    rows = [own_rows(rows).numpy() for rows in collate.rows.values()]
    _, first, inverse = np.unique(np.stack(rows, axis=1), axis=0, return_index=True, return_inverse=True)
    return torch.from_numpy(first[inverse.reshape(-1)])
