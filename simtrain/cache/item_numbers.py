"""Keys of items that have no content to go by: their numbers in their data set, for caches in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64
from torch.utils.data import Dataset

from simtrain.cache.digests import node
from simtrain.data.collate import EncoderCollate
from simtrain.data.item_numbers import item_numbers
from simtrain.data.samples import SimilarityGroupSample, SimilarityPairSample, SimilarityTripletSample


class DataSources:
    """A token for each data set that has been seen, so that the numbers of one do not stand for items of another.

    Data sets are known by which object they are, and kept, so that no other can come to lie at their place.

    Example:
        >>> sources, data = DataSources(), ["a", "b"]
        >>> sources.token(data) == sources.token(data), sources.token(data) == sources.token(["a", "b"])
        (True, False)
    """

    def __init__(self) -> None:
        self._known: dict[int, Any] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> DataSources:
        return self  # a copy of a model shares its caches

    def token(self, dataset: Any) -> bytes:
        """What the keys of a data set's items begin with; another one once the data set has another length."""
        self._known.setdefault(id(dataset), (dataset, len(self._known)))
        return node("data set", str(self._known[id(dataset)][1]).encode(), str(len(dataset)).encode())


@dataclasses.dataclass
class ItemNumbers:
    """The numbers of items in their data set.

    Attributes:
        source: Token of the data set.
        numbers: Of each item, as :func:`simtrain.data.item_numbers.item_numbers` counts them.
        used: Whether one of them had to stand for an item.
    """

    source: bytes
    numbers: Int64[np.ndarray, " n"]
    used: bool = False

    @classmethod
    def of(cls, source: bytes, owners: Sequence[int], size: int) -> ItemNumbers:
        """Numbers of items of which it is known whose they are.

        Args:
            source: Token of the data set.
            owners: Row of the data set that each item is of.
            size: Samples in the data set.
        """
        return cls(source, item_numbers(owners, size).numpy())

    def key(self, position: int) -> bytes:
        """Key of the item at a position."""
        self.used = True
        return node("item number", self.source, int(self.numbers[position]).to_bytes(8, "little"))


@dataclasses.dataclass(frozen=True)
class NumberedItem:
    """An item with its number in the data set."""

    item: Any
    number: int


class NumberedObjects(Dataset[Any]):
    """A data set of samples whose items know their numbers.

    Args:
        dataset: A map-style data set of samples; it is not changed.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> Any:
        sample, size = self.dataset[row], len(self.dataset)
        row = row % size

        def numbered(item: Any, rank: int) -> NumberedItem:
            return NumberedItem(item, row + rank * size)

        return _NUMBERED[type(sample)](sample, numbered)

    def place(self, row: int) -> str | None:
        """Where the data set has a row from, for messages."""
        place = getattr(self.dataset, "place", None)
        return place(row) if callable(place) else None


class NumberedItemsCollate(EncoderCollate):
    """Collates samples of :class:`NumberedObjects`: cached encoders look their items up by number, too.

    Args:
        collate: The collate function for samples.
        source: Token of the data set.
    """

    def __init__(self, collate: EncoderCollate, source: bytes) -> None:
        super().__init__(collate.collate_fns, collate.side_fns, collate.meta)
        self.collate_fns = {
            name: _NumberedLookup(look_up, source) if getattr(look_up, "takes_numbers", False) else _Plain(look_up)
            for name, look_up in collate.collate_fns.items()
        }
        self.meta = collate.meta and _Plain(collate.meta)  # type: ignore[assignment]

    def marked(self, name: str, objects: Sequence[Any], sides: Sequence[int] | None) -> Sequence[Any]:
        """The objects with the marks of their sides, still numbered."""
        items = super().marked(name, [numbered.item for numbered in objects], sides)
        return [NumberedItem(item, numbered.number) for item, numbered in zip(items, objects, strict=True)]


@dataclasses.dataclass(frozen=True)
class _Plain:
    """A function of items, for numbered ones."""

    function: Callable[..., Any]

    def __call__(self, objects: Sequence[NumberedItem], *args: Any) -> Any:
        return self.function([numbered.item for numbered in objects], *args)


@dataclasses.dataclass(frozen=True)
class _NumberedLookup:
    lookup: Callable[..., Any]
    source: bytes

    def __call__(self, objects: Sequence[NumberedItem]) -> Any:
        numbers = np.array([numbered.number for numbered in objects], dtype=np.int64)
        return self.lookup([numbered.item for numbered in objects], ItemNumbers(self.source, numbers))


Numbered = Callable[[Any, int], NumberedItem]


def _numbered_group(sample: SimilarityGroupSample, numbered: Numbered) -> SimilarityGroupSample:
    return dataclasses.replace(sample, obj=numbered(sample.obj, 0))


def _numbered_pair(sample: SimilarityPairSample, numbered: Numbered) -> SimilarityPairSample:
    return dataclasses.replace(sample, obj_a=numbered(sample.obj_a, 0), obj_b=numbered(sample.obj_b, 1))


def _numbered_triplet(sample: SimilarityTripletSample, numbered: Numbered) -> SimilarityTripletSample:
    negatives = [numbered(negative, rank) for rank, negative in enumerate(sample.negatives, start=2)]
    anchor, positive = numbered(sample.anchor, 0), numbered(sample.positive, 1)
    return SimilarityTripletSample(anchor, positive, negatives)


_NUMBERED: dict[type, Callable[[Any, Numbered], Any]] = {
    SimilarityGroupSample: _numbered_group,
    SimilarityPairSample: _numbered_pair,
    SimilarityTripletSample: _numbered_triplet,
}
