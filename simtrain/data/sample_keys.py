"""What makes two samples of a batch spoil each other: equal texts, and equal subgroups."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from simtrain.data.samples import SimilarityPairSample, SimilarityTripletSample
from simtrain.errors import DataError

KeysOf = Callable[[Any], Iterable[Hashable]]


@dataclass(frozen=True, slots=True)
class SubgroupKey:
    """A subgroup as a key; never equal to an object that is a number."""

    subgroup: int


def sample_keys(sample: Any) -> set[Hashable]:
    """Objects of a pair or triplet sample, whichever side they are on, and its subgroup unless that is 0.

    Raises:
        DataError: The sample is of another kind, or its objects cannot be compared by their hash.

    Example:
        >>> sorted(sample_keys(SimilarityPairSample("sort", "sorted()")))
        ['sort', 'sorted()']
    """
    if isinstance(sample, SimilarityPairSample):
        keys = {_key(sample.obj_a), _key(sample.obj_b)}
        return keys | {SubgroupKey(sample.subgroup)} if sample.subgroup else keys
    if isinstance(sample, SimilarityTripletSample):
        return {_key(item) for item in (sample.anchor, sample.positive, *sample.negatives)}
    raise DataError(f"pairs or triplets are needed, got a {type(sample).__name__}; pass keys=… for samples of your own")


def _key(item: Any) -> Hashable:
    # A tensor's hash is its address: equal tensors would pass for different ones.
    if isinstance(item, Hashable) and not isinstance(item, Tensor):
        return item
    raise DataError(
        f"a {type(item).__name__} cannot be compared by its hash; pass keys=…, a function from a sample to what "
        "must not be equal (a file name, say)"
    )


class KeyTable:
    """Which keys the samples of a data set have, as numbers.

    Args:
        source: The samples: a data set, or any sequence.
        keys: Function from a sample to its keys; default: :func:`sample_keys`.

    Attributes:
        size: Number of samples.
        names: The keys, in order of appearance.
        samples: Sample number of each (sample, key).
        numbers: Key number of each (sample, key).

    Raises:
        DataError: There is no sample.
    """

    def __init__(self, source: Any, keys: KeysOf | None = None) -> None:
        self.size = len(source)
        if self.size == 0:
            raise DataError("there should be at least one sample, got none")
        known: dict[Hashable, int] = {}
        samples: list[int] = []
        numbers: list[int] = []
        keys_of = keys or sample_keys
        for sample in range(self.size):
            for key in dict.fromkeys(keys_of(source[sample])):
                samples.append(sample)
                numbers.append(known.setdefault(key, len(known)))
        self.names: Sequence[Hashable] = list(known)
        self.samples = np.asarray(samples, dtype=np.int64)
        self.numbers = np.asarray(numbers, dtype=np.int64)

    def counts(self) -> np.ndarray:
        """In how many samples each key is."""
        return np.bincount(self.numbers, minlength=len(self.names))

    def components(self) -> np.ndarray:
        """Number of the connected component of each sample: samples that share a key, directly or through others."""
        size = self.size + len(self.names)
        links = (np.ones(len(self.samples), dtype=bool), (self.samples, self.numbers + self.size))
        graph = coo_matrix(links, shape=(size, size))
        return np.asarray(connected_components(graph, directed=False)[1][: self.size], dtype=np.int64)
