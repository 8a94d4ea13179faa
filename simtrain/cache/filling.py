"""Encoding the items that a cache lacks."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from simtrain.cache.config import KeyExtractor
from simtrain.cache.item_keys import item_keys
from simtrain.cache.item_numbers import ItemNumbers
from simtrain.cache.storage_types import STORAGE_TYPES
from simtrain.data.transfer import move_to
from simtrain.encoders import Encoder
from simtrain.encoders.item_error import ItemError
from simtrain.errors import DataError
from simtrain.models.eval_mode import eval_mode

Positions = Int64[np.ndarray, " n"]


@runtime_checkable
class Items(Protocol):
    """A list, a tuple, or a data set that reads its items when asked for them."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> Any: ...


class KeyedItems:
    """Items that know their own keys: several of them are versions of one thing that has a key."""

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, position: int, /) -> Any:
        raise NotImplementedError

    def keys(self, key_extractor: KeyExtractor | None) -> UInt8[np.ndarray, "n 16"]:
        """Key of each item."""
        raise NotImplementedError

    def measured(self, position: int) -> Any:
        """What is as long as an item, for sorting by length."""
        raise NotImplementedError


class CountedItems(KeyedItems):
    """Items of a data set, of which those without content are known by their numbers.

    Args:
        items: The items.
        numbers: Their numbers.
    """

    def __init__(self, items: Sequence[Any], numbers: ItemNumbers) -> None:
        self.items, self.numbers = items, numbers

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> Any:
        return self.items[position]

    def keys(self, key_extractor: KeyExtractor | None) -> UInt8[np.ndarray, "n 16"]:
        """Key of each item."""
        return item_keys(self.items, key_extractor, self.numbers)

    def measured(self, position: int) -> Any:
        """The item."""
        return self.items[position]


class NumberedItems(Dataset[tuple[int, Any]]):
    """Items with their positions, for a loader."""

    def __init__(self, items: Items) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> tuple[int, Any]:
        return position, self.items[position]


@dataclass(frozen=True)
class CollatedItems:
    """A collated batch that knows which items it was made of.

    Attributes:
        positions: Positions of the items in the data.
        keys: Keys of the items as they were collated; None where they cannot have changed.
        batch: What the encoder's collate function made, or its complaint about an item.
    """

    positions: Positions
    keys: np.ndarray | None
    batch: Any


@dataclass(frozen=True)
class NumberedCollate:
    """Collates numbered items; runs in the loader's workers.

    Args:
        collate_fn: The encoder's collate function.
        key_extractor: That of the cache.
        with_keys: Take the items' keys again.
    """

    collate_fn: Callable[[Sequence[Any]], Any]
    key_extractor: KeyExtractor | None
    with_keys: bool

    def __call__(self, numbered: list[tuple[int, Any]]) -> CollatedItems:
        """Collate one batch."""
        positions = np.array([position for position, _ in numbered], dtype=np.int64)
        items = [item for _, item in numbered]
        keys = item_keys(items, self.key_extractor) if self.with_keys else None
        try:
            return CollatedItems(positions, keys, self.collate_fn(items))
        except ItemError as error:  # handed over, since a loader cannot raise an error of two arguments again
            return CollatedItems(positions, keys, ItemError(int(positions[error.position]), error.reason))


def is_fixed(items: Items) -> bool:
    """Whether reading an item twice gives the same object, so that its key needs no second look."""
    return isinstance(items, (list, tuple, KeyedItems))


def length_sorted_batches(encoder: nn.Module, items: Items, positions: Positions, size: int) -> list[list[int]]:
    """Batches of positions, longest items first, so that little is padded and memory runs out at once or never.

    Example:
        >>> length_sorted_batches(Encoder(), "abc", np.array([0, 2]), size=1)
        [[0], [2]]
    """
    item_length = getattr(encoder, "item_length", None)
    if item_length is not None and getattr(type(encoder), "item_length", None) is not Encoder.item_length:
        measured = items.measured if isinstance(items, KeyedItems) else items.__getitem__
        lengths = np.array([item_length(measured(position)) for position in positions.tolist()])
        positions = positions[np.argsort(-lengths, kind="stable")]
    return [positions[start : start + size].tolist() for start in range(0, len(positions), size)]


def collated_batches(
    items: Items, batches: list[list[int]], collate: NumberedCollate, num_workers: int
) -> Iterator[CollatedItems]:
    """Read and collate batches, in worker processes where asked for."""
    return iter(
        DataLoader(
            NumberedItems(items),
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=num_workers,
            # Its own generator: filling must not move the random numbers of training.
            generator=torch.Generator(),
        )
    )


@contextmanager
def encoding_mode(encoder: nn.Module, device: torch.device) -> Iterator[None]:
    """Eval mode on ``device``; afterwards every module is in the mode, and the encoder at the place, it was in."""
    home = single_device(encoder)
    moves = home is not None and home != device
    with eval_mode(encoder), torch.autocast(device.type, enabled=False):
        try:
            if moves:
                encoder.to(device)
            yield
        finally:
            if moves:
                encoder.to(home)


def single_device(encoder: nn.Module) -> torch.device | None:
    """The device that all weights of an encoder are on; None if there is none, or several."""
    tensors = [*encoder.parameters(), *encoder.buffers()]
    devices = {tensor.device for tensor in tensors}
    return devices.pop() if len(devices) == 1 else None


def encode(encoder: nn.Module, batch: Any, device: torch.device) -> Tensor:
    """Embed a collated batch without a graph."""
    with torch.inference_mode():
        return cast(Tensor, encoder(move_to(batch, device)))


def checked_vectors(
    name: str, vectors: Tensor, items: Items, positions: Positions, dim: int, dtype: str
) -> Float[Tensor, "n dim"]:
    """Return a batch's embeddings in the stored type, if they have the right shape and are finite.

    Raises:
        DataError: They are not; the message names the encoder and the item.
    """
    if not isinstance(vectors, Tensor) or tuple(vectors.shape) != (len(positions), dim):
        got = tuple(vectors.shape) if isinstance(vectors, Tensor) else type(vectors).__name__
        raise DataError(
            f"encoder {name!r} must give shape {(len(positions), dim)} for {len(positions)} items, got {got}"
        )
    stored = vectors.to(STORAGE_TYPES[dtype])
    finite = stored.isfinite().all(dim=1)
    if bool(finite.all()):
        return stored
    row = int((~finite).nonzero()[0])
    position = int(positions[row])
    raise DataError(
        f"encoder {name!r} gives {explain_infinite(vectors[row], dtype)} for item {position}, "
        f"{reprlib.repr(items[position])}"
    )


def explain_infinite(vector: Float[Tensor, " dim"], dtype: str) -> str:
    """Say why a stored vector is not finite."""
    if bool(vector.isfinite().all()):
        largest = float(vector.abs().max())
        return f"numbers up to {largest:.3g}, too large for {dtype} (set CacheConfig(dtype='float32')),"
    return "an embedding that is not finite"
