"""Map-style data sets of samples."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from simtrain.data.label_names import LabelNames, extended, number_labels, plain_label, save_label_names
from simtrain.data.samples import SimilarityGroupSample, SimilarityPairSample, SimilarityTripletSample
from simtrain.data.table_items import LabelledItems, TableItems
from simtrain.errors import DataError

SampleT = TypeVar("SampleT")


@runtime_checkable
class SizedSource(Protocol):
    """Anything with a length and integer indexing that gives ``(item, label)``."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class SimilarityPairDataset(Dataset[SimilarityPairSample]):
    """Pairs held in memory.

    Args:
        samples: The pairs, at least one; a generator is read to its end.

    Raises:
        DataError: There is no sample, or one is not a :class:`SimilarityPairSample`.

    Example:
        >>> data = SimilarityPairDataset([SimilarityPairSample("how old", "age()")])
        >>> len(data), data[0].obj_a
        (1, 'how old')
    """

    def __init__(self, samples: Iterable[SimilarityPairSample]) -> None:
        self.samples = checked(samples, SimilarityPairSample)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> SimilarityPairSample:
        return self.samples[index]


class SimilarityTripletDataset(Dataset[SimilarityTripletSample]):
    """Triplets held in memory.

    Args:
        samples: The triplets, at least one, each with one negative or more; a generator is read to its end.

    Raises:
        DataError: There is no sample, one is not a :class:`SimilarityTripletSample`, or has no list of negatives.

    Example:
        >>> data = SimilarityTripletDataset([SimilarityTripletSample("king", "queen", ["chair"])])
        >>> len(data), data[0].negatives
        (1, ['chair'])
    """

    def __init__(self, samples: Iterable[SimilarityTripletSample]) -> None:
        self.samples = checked(samples, SimilarityTripletSample)
        for index, sample in enumerate(self.samples):
            _check_negatives(sample, index)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> SimilarityTripletSample:
        return self.samples[index]


class SimilarityGroupDataset(Dataset[SimilarityGroupSample]):
    """Items with a group label, from group samples or from any data set that gives ``(item, label)``.

    Labels may be any hashable. They are mapped to 0, 1, ... in order of appearance unless all of them are
    integers, which are kept as they are; :attr:`label_names` tells which label a number stands for. It can be saved
    and given to another data set, so that a label has one number in both; :meth:`numbered_like` allows new labels too.
    A CSV or TSV file has no types: where all its labels are written as whole numbers are (``7``, not ``007``), they
    are read as integers, as Parquet, pandas and JSON have them.

    Args:
        source: Group samples, ``(item, label)`` tuples, or a sized data set of such tuples (torchvision style); a
            generator is read to its end. Items are read when they are asked for, and nothing is changed. Labels are
            read once, here: from the source's ``targets`` where it has them, so that no image is opened for its
            label, else from its elements.
        label_names: A mapping from number to label to use instead of numbering anew, as :attr:`label_names` of
            another data set or :func:`load_label_names` give it.
        skipped: Names of items that a reader left out because they could not be read.

    Attributes:
        label_names: Number → label.
        skipped: As given.

    Raises:
        DataError: The source is empty, its elements are neither group samples nor pairs of item and label, or a
            label is not in ``label_names``.

    Example:
        >>> data = SimilarityGroupDataset([("red shoe", "shoes"), ("blue hat", "hats"), ("red boot", "shoes")])
        >>> [data[i].group for i in range(3)], data.label_names
        ([0, 1, 0], {0: 'shoes', 1: 'hats'})
    """

    def __init__(
        self,
        source: SizedSource | Iterable[Any],
        label_names: LabelNames | None = None,
        skipped: Sequence[str] = (),
    ) -> None:
        self._source: SizedSource = source if isinstance(source, SizedSource) else list(source)
        if len(self._source) == 0:
            raise DataError("a group data set needs at least one (item, label), got none")
        self._labels = _labels_of(self._source)
        self._groups, self.label_names = number_labels(self._labels, label_names)
        self.skipped = tuple(skipped)

    def numbered_like(self, label_names: LabelNames) -> SimilarityGroupDataset:
        """The same items, whose labels have the numbers that they have in another data set.

        Labels that are not in that data set are numbered after its own, so that a validation set may have classes
        of its own. ``7`` and ``"7"`` are one label here: what a typed file holds as a number, a text file may quote.

        Args:
            label_names: The other data set's :attr:`label_names`.

        Example:
            >>> train = SimilarityGroupDataset([("red shoe", "shoes"), ("blue hat", "hats")])
            >>> valid = SimilarityGroupDataset([("cap", "hats"), ("bag", "bags")])
            >>> valid.numbered_like(train.label_names).label_names
            {0: 'shoes', 1: 'hats', 2: 'bags'}
        """
        twin = copy.copy(self)
        twin._groups, twin.label_names = number_labels(self._labels, extended(label_names, self._labels))
        return twin

    def place(self, index: int) -> str:
        """Where an item comes from, for messages: its row in a table; empty where the source does not say."""
        items = getattr(self._source, "items", None)
        return items.table.place(range(len(self))[index]) if isinstance(items, TableItems) else ""

    def save_label_names(self, path: str | Path) -> None:
        """Save which number stands for which label, as JSON; see :func:`load_label_names`.

        Raises:
            DataError: A label is neither a text, a number, True, False nor a tuple of these.
        """
        save_label_names(path, self.label_names)

    @property
    def groups(self) -> Tensor:
        """Group of each item, ``(items,)``, int64; no item is read for it."""
        return torch.tensor(self._groups, dtype=torch.long)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> SimilarityGroupSample:
        item, label = item_and_label(self._source[index], index)
        group = self._groups[index]
        if self._labels[index] != label:
            raise DataError(
                f"element {index} had the label {self._labels[index]!r} when the data set was made and now has "
                f"{label!r}; its source should always give an item the same label"
            )
        return SimilarityGroupSample(item, group)


def checked(samples: Iterable[SampleT], kind: type[SampleT]) -> list[SampleT]:
    """Return the samples as a list after checking that there are some and that all are of one kind."""
    samples = list(samples)
    if not samples:
        raise DataError(f"a data set needs at least one {kind.__name__}, got none")
    for index, sample in enumerate(samples):
        if not isinstance(sample, kind):
            raise DataError(f"sample {index} is a {type(sample).__name__}, expected {kind.__name__}: {sample!r:.80}")
    return samples


def item_and_label(element: Any, index: int) -> tuple[Any, Hashable]:
    """Split one element of a group data set into item and label."""
    if isinstance(element, SimilarityGroupSample):
        return element.obj, element.group
    if not isinstance(element, (tuple, list)) or len(element) != 2:
        raise DataError(f"element {index} should be a SimilarityGroupSample or (item, label), got {element!r:.80}")
    return element[0], _plain(element[1], index)


def _plain(label: Any, index: int) -> Hashable:
    if type(label) in (int, str):
        return label  # type: ignore[no-any-return]
    try:
        return plain_label(label)
    except DataError as error:
        raise DataError(f"element {index}: {error}") from None


def _labels_of(source: SizedSource) -> list[Hashable]:
    labels = _targets(source)
    if isinstance(source, LabelledItems):
        return labels
    # Read one element all the same: targets that mean something else than its label are left alone.
    if len(labels) == len(source) and labels[0] == item_and_label(source[0], 0)[1]:
        return labels
    return [item_and_label(source[index], index)[1] for index in range(len(source))]


def _targets(source: Any) -> list[Hashable]:
    if isinstance(source, Subset):
        labels = _targets(source.dataset)
        return [labels[index] for index in source.indices] if labels else []
    targets = getattr(source, "targets", None)
    # A transform of the targets would make them other labels than those that come with the items.
    if not isinstance(targets, Iterable) or getattr(source, "target_transform", None) is not None:
        return []
    values = targets.tolist() if hasattr(targets, "tolist") else targets
    try:
        return [_plain(label, index) for index, label in enumerate(values)]
    except DataError:
        return []


def _check_negatives(sample: SimilarityTripletSample, index: int) -> None:
    if isinstance(sample.negatives, (str, bytes)) or not isinstance(sample.negatives, Sequence):
        kind = type(sample.negatives).__name__
        raise DataError(f"sample {index}: negatives should be a list of items, got {kind} {sample.negatives!r:.60}")
    if len(sample.negatives) == 0:
        raise DataError(f"sample {index} has no negatives; a triplet needs one or more")
