"""Views: several random versions of each item, encoded once, of which training draws one an epoch."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xxhash
from jaxtyping import Int64, UInt8
from torch import Tensor

from simtrain.cache.config import Augment, KeyExtractor
from simtrain.cache.digests import node
from simtrain.cache.embedding_cache import RowLookup, known_rows
from simtrain.cache.filling import KeyedItems
from simtrain.cache.fingerprint import callable_fingerprint
from simtrain.cache.item_keys import KEY_BYTES, item_keys
from simtrain.cache.item_numbers import ItemNumbers

Mark = Callable[[Sequence[Any], Sequence[int]], list[Any]]
Keys = UInt8[np.ndarray, "n 16"]


@dataclass(frozen=True)
class Views:
    """Which versions of an item there are.

    Args:
        count: Number of versions beside the item itself.
        augment: From a raw item to a random version of it.
        seed: Seed of the versions and of the draw.
    """

    count: int
    augment: Augment
    seed: int = 0

    @functools.cached_property
    def prefix(self) -> bytes:
        """What all versions' keys begin with, before they are digested: another function makes other versions."""
        return node("view", callable_fingerprint(self.augment).encode(), str(self.seed).encode())


def view_keys(keys: Keys, prefix: bytes, count: int) -> UInt8[np.ndarray, "m 16"]:
    """Keys of the versions of items: the first version of each, then the second of each, and so on.

    Example:
        >>> view_keys(np.zeros((2, 16), dtype=np.uint8), b"", count=3).shape
        (6, 16)
    """
    digest, plain = xxhash.xxh3_128_digest, [key.tobytes() for key in keys]
    made = [digest(prefix + key + view.to_bytes(4, "little")) for view in range(count) for key in plain]
    return np.frombuffer(b"".join(made), dtype=np.uint8).reshape(-1, KEY_BYTES)


@contextmanager
def seeded(key: bytes) -> Iterator[None]:
    """Let the generators of torch (of the CPU), numpy and Python begin at ``key``, and go on afterwards as before.

    Example:
        >>> def draw():
        ...     with seeded(bytes(16)):
        ...         return random.random()
        >>> draw() == draw()
        True
    """
    state, np_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(key)
    np.random.seed(np.frombuffer(key, dtype=np.uint32))
    # Not torch.manual_seed, which would seed the GPUs too.
    torch.default_generator.manual_seed(int.from_bytes(key[:8], "little"))
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(np_state)
        torch.set_rng_state(torch_state)


class ViewItems(KeyedItems):
    """Items and their versions, for filling a cache: all items, then the first version of each, and so on.

    A version is drawn under a seed of its own, so that it is the same in whatever order, batch or process it is made.

    Args:
        items: Raw items.
        marked: The same items with the marks of their sides.
        sides: Code of each one's side; None for items without sides.
        mark: Marks items by their side; None for an encoder without marks.
        views: Which versions to make.
        numbers: Stand for items that have no content to go by.
    """

    def __init__(
        self,
        items: Sequence[Any],
        marked: Sequence[Any],
        sides: Sequence[int] | None,
        mark: Mark | None,
        views: Views,
        numbers: ItemNumbers | None = None,
    ) -> None:
        self.items, self.marked, self.views, self.numbers = items, marked, views, numbers
        self.sides, self.mark = sides, mark
        self._keys = np.empty((0, KEY_BYTES), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.items) * (1 + self.views.count)

    def __getitem__(self, position: int) -> Any:
        view, number = divmod(position, len(self.items))
        if view == 0:
            return self.marked[number]
        with seeded(self._keys[position].tobytes()):
            version = self.views.augment(self.items[number])
        if self.mark is None or self.sides is None:
            return version
        return self.mark([version], [self.sides[number]])[0]

    def keys(self, key_extractor: KeyExtractor | None) -> Keys:
        """Keys of the items, then of their versions."""
        plain = item_keys(self.marked, key_extractor, self.numbers)
        self._keys = np.concatenate([plain, view_keys(plain, self.views.prefix, self.views.count)])
        return self._keys

    def measured(self, position: int) -> Any:
        """The item itself: that is about as long as its versions, and need not be made."""
        return self.marked[position % len(self.items)]


@dataclass(frozen=True)
class ViewLookup:
    """Turns raw items into the rows of all their versions: the collate function of a cached encoder in training.

    Args:
        lookup: From items to rows.
        prefix: :attr:`Views.prefix`.
        count: :attr:`Views.count`.
    """

    lookup: RowLookup
    prefix: bytes
    count: int

    takes_numbers = True

    def __call__(self, items: Sequence[Any], numbers: ItemNumbers | None = None) -> Int64[Tensor, "n columns"]:
        """A number that stands for the item, its row, and the rows of its versions.

        Raises:
            CacheError: An item is not in the cache.
        """
        items = list(items)
        keys = item_keys(items, self.lookup.key_extractor, numbers)
        found = self.lookup.index.lookup(np.concatenate([keys, view_keys(keys, self.prefix, self.count)]))
        # A version that is missing is told by the item that it is a version of.
        rows = known_rows(self.lookup.name, items * (1 + self.count), found)
        salt = torch.from_numpy(np.ascontiguousarray(keys).view(np.int64)[:, 0].copy())
        return torch.cat([salt.unsqueeze(1), rows.view(1 + self.count, -1).T], dim=1)


def own_rows(batch: Int64[Tensor, "n ..."]) -> Int64[Tensor, " n"]:
    """Rows of the items themselves, of a batch of rows or of a table that :class:`ViewLookup` made.

    Example:
        >>> own_rows(torch.tensor([[123, 7, 8, 9]])).tolist(), own_rows(torch.tensor([7])).tolist()
        ([7], [7])
    """
    return batch if batch.ndim == 1 else batch[:, 1]


def drawn_rows(table: Int64[Tensor, "n columns"], seed: int, epoch: int) -> Int64[Tensor, " n"]:
    """Row of one version of each item.

    In any ``count`` epochs from a multiple of ``count`` on, each version of an item is drawn once. The draw depends on
    the item, the seed and the epoch, and on nothing that was drawn before.

    Args:
        table: What :class:`ViewLookup` gives.
        seed: Seed of the draw.
        epoch: Number of the epoch.

    Example:
        >>> table = torch.tensor([[123, 7, 8, 9]])
        >>> sorted(drawn_rows(table, seed=0, epoch=epoch).item() for epoch in (0, 1))
        [8, 9]
    """
    count = table.shape[1] - 2
    first = mixed(table[:, 0] ^ mixed_number(seed, epoch // count)) >> 32 & 0x7FFFFFFF
    return table.gather(1, ((first + epoch) % count + 2).unsqueeze(1)).squeeze(1)


def mixed(numbers: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """Numbers whose bits all depend on all bits of the given ones.

    Reference:
        Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014 (the finalizer of SplitMix64).
    """
    numbers = (numbers ^ (numbers >> 30 & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    numbers = (numbers ^ (numbers >> 27 & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return numbers ^ (numbers >> 31 & 0x1FFFFFFFF)


def mixed_number(seed: int, cycle: int) -> int:
    """A number of 63 bits that stands for a seed and a cycle of epochs."""
    return xxhash.xxh3_64_intdigest(f"{seed} {cycle}".encode()) >> 1
