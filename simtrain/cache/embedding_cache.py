"""The cache of one frozen encoder: fill it once, then look rows up."""

from __future__ import annotations

import logging
import reprlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from simtrain.cache.config import KeyExtractor
from simtrain.cache.filling import (
    Items,
    KeyedItems,
    NumberedCollate,
    Positions,
    checked_vectors,
    collated_batches,
    encode,
    encoding_mode,
    is_fixed,
    length_sorted_batches,
)
from simtrain.cache.item_keys import item_keys
from simtrain.cache.item_numbers import ItemNumbers
from simtrain.cache.key_index import KeyIndex, first_positions
from simtrain.cache.stores import Store
from simtrain.errors import CacheError, DataError
from simtrain.models.progress import Progress

logger = logging.getLogger("simtrain")

CHANGING_ITEMS = (
    "the data set gives other objects than when the cache was filled, as random augmentation does; make its "
    "transform deterministic, or switch the cache off for this encoder (CacheType.NONE)"
)


@dataclass(frozen=True)
class FillReport:
    """What filling a cache came to.

    Attributes:
        n_items: Items given.
        n_unique: Distinct items among them.
        n_reused: Distinct items whose embeddings were there already.
        n_encoded: Distinct items that were encoded.
        seconds: Time taken.
    """

    n_items: int
    n_unique: int
    n_reused: int
    n_encoded: int
    seconds: float


@dataclass(frozen=True)
class RowLookup:
    """Turns raw items into row numbers: the collate function of a cached encoder. Light enough for loader workers.

    Args:
        name: Name of the encoder.
        index: Keys → rows.
        key_extractor: Function from an item to its key; None takes the content.
    """

    name: str
    index: KeyIndex
    key_extractor: KeyExtractor | None = None

    #: Says that a call takes numbers, too.
    takes_numbers = True

    def __call__(self, items: Iterable[Any], numbers: ItemNumbers | None = None) -> Int64[Tensor, " n"]:
        """Row number of each item.

        Args:
            items: The items.
            numbers: Stand for items without content.

        Raises:
            CacheError: An item is not in the cache.
        """
        items = list(items)
        return known_rows(self.name, items, self.index.lookup(item_keys(items, self.key_extractor, numbers)))


def known_rows(name: str, items: list[Any], rows: Int64[np.ndarray, " n"]) -> Int64[Tensor, " n"]:
    """Row numbers as a tensor.

    Raises:
        CacheError: One of them is −1; the message names its item.

    Example:
        >>> known_rows("text", ["a", "b"], np.array([1, 0]))
        tensor([1, 0])
    """
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        item = reprlib.repr(items[missing[0]])
        raise CacheError(f"the cache of encoder {name!r} has no embedding of {item}: {CHANGING_ITEMS}")
    return torch.from_numpy(rows)


class EmbeddingCache:
    """Embeddings of a frozen encoder, computed once for each distinct item.

    Args:
        encoder: A frozen encoder: an :class:`~simtrain.encoders.Encoder` or a module that looks like one.
        store: Where the embeddings are kept.
        key_extractor: Function from an item to the value that identifies it. Default: the item's content.
        device: Device to encode on and to give embeddings on. Default: the CPU.
        name: Name of the encoder, for messages.

    Example:
        >>> from simtrain.cache import MemoryStore
        >>> from simtrain.encoders import ModuleEncoder
        >>> cache = EmbeddingCache(ModuleEncoder(nn.Identity(), embedding_size=2), MemoryStore(dim=2))
        >>> items = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0])]
        >>> cache.fill(items).n_encoded
        2
        >>> cache.gather(cache.rows(items))
        tensor([[1., 2.],
                [3., 4.],
                [1., 2.]])
    """

    def __init__(
        self,
        encoder: nn.Module,
        store: Store,
        key_extractor: KeyExtractor | None = None,
        *,
        device: torch.device | str = "cpu",
        name: str = "encoder",
    ) -> None:
        self.encoder = encoder
        self.store = store
        self.key_extractor = key_extractor
        self.device = torch.device(device)
        self.name = name
        self._announced = False

    def __deepcopy__(self, memo: dict[int, Any]) -> EmbeddingCache:
        return self  # a copy of a model, for averaged weights say, needs no second store

    @property
    def embedding_size(self) -> int:
        """Number of dimensions of an embedding."""
        return self.store.dim

    @property
    def is_persistent(self) -> bool:
        """Whether the embeddings outlive this process, so that an item's number says nothing."""
        return getattr(self.store, "folder", None) is not None

    @property
    def row_lookup(self) -> RowLookup:
        """Function from raw items to rows that can be sent to loader workers."""
        return RowLookup(self.name, self.store.index, self.key_extractor)

    def fill(
        self,
        objects: Items,
        *,
        batch_size: int = 64,
        num_workers: int = 0,
        progress: bool | None = None,
        name: str = "data",
    ) -> FillReport:
        """Encode the items that are not in the cache yet; equal items once, in batches of similar length.

        An interrupted filling keeps what it has encoded. Where the store is shared, a second process waits for the
        first and uses its embeddings.

        Args:
            objects: The raw items: a list, a tuple, or anything with a length that gives items by position. Of the
                latter, items that are to be encoded are read a second time, in the workers.
            batch_size: Items encoded at once.
            num_workers: Worker processes that read and collate.
            progress: Show a progress bar. Default: if it takes over a second in a terminal.
            name: What the items are, for messages.

        Returns:
            What was reused and what was encoded.

        Raises:
            DataError: An item cannot be encoded, or an embedding is not finite or has another size than the store.
            CacheError: An item has no key or changes from one reading to the next, or the store cannot be written.
        """
        start = time.perf_counter()
        keys = keys_of(objects, self.key_extractor)
        unique = first_positions(keys)
        missing = self._missing(keys, unique)
        if len(missing):
            with self.store.writing():
                missing = self._missing(keys, unique)  # another process may have filled the store by now
                self._encode_missing(objects, keys, missing, batch_size, num_workers, progress, name)
        seconds = time.perf_counter() - start
        report = FillReport(len(keys), len(unique), len(unique) - len(missing), len(missing), seconds)
        level = logging.INFO if report.n_encoded or not self._announced else logging.DEBUG
        self._announced = True
        logger.log(
            level,
            "cache of encoder %r, %s: %d items, %d distinct: %d reused, %d encoded in %.1f s",
            *(self.name, name, report.n_items, report.n_unique, report.n_reused, report.n_encoded, seconds),
        )
        return report

    def rows(self, objects: Iterable[Any]) -> Int64[Tensor, " n"]:
        """Row number of each item.

        Raises:
            CacheError: An item is not in the cache.
        """
        items = list(objects)
        # The store's own look-up: it sees to it that the embeddings are whole.
        return known_rows(self.name, items, self.store.lookup(item_keys(items, self.key_extractor)).numpy())

    def gather(self, rows: Int64[Tensor, " n"], device: torch.device | str | None = None) -> Float[Tensor, "n dim"]:
        """Embeddings of rows in float32, on ``device`` (default: the cache's)."""
        return self.store.gather(rows, device or self.device)

    def _missing(self, keys: UInt8[np.ndarray, "n 16"], unique: Int64[np.ndarray, " u"]) -> Int64[np.ndarray, " m"]:
        return unique[self.store.lookup(keys[unique]).numpy() < 0]

    def _encode_missing(
        self,
        objects: Items,
        keys: UInt8[np.ndarray, "n 16"],
        missing: Int64[np.ndarray, " m"],
        batch_size: int,
        num_workers: int,
        progress: bool | None,
        name: str,
    ) -> None:
        self.store.reserve(len(missing))
        collate_fn = self.encoder.get_collate_fn()  # type: ignore[operator]
        collate = NumberedCollate(collate_fn, self.key_extractor, with_keys=not is_fixed(objects))
        batches = length_sorted_batches(self.encoder, objects, missing, batch_size)
        with (
            encoding_mode(self.encoder, self.device),
            Progress(f"encoding {name} with {self.name!r}", len(missing), progress) as bar,
        ):
            for collated in collated_batches(objects, batches, collate, num_workers):
                positions = collated.positions
                if isinstance(collated.batch, DataError):
                    raise collated.batch
                if collated.keys is not None and not np.array_equal(collated.keys, keys[positions]):
                    raise CacheError(
                        f"an item of {name} changed while encoder {self.name!r} was cached: {CHANGING_ITEMS}"
                    )
                self.store.append(keys[positions], self._encoded(collated.batch, objects, positions))
                bar.advance(len(positions))

    def _encoded(self, batch: Any, objects: Items, positions: Positions) -> Any:
        vectors = encode(self.encoder, batch, self.device)
        return checked_vectors(self.name, vectors, objects, positions, self.store.dim, self.store.dtype)


def keys_of(objects: Items, key_extractor: KeyExtractor | None) -> UInt8[np.ndarray, "n 16"]:
    """Keys of items of any kind."""
    if isinstance(objects, KeyedItems):
        return objects.keys(key_extractor)
    return item_keys((objects[position] for position in range(len(objects))), key_extractor)
