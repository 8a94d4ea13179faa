"""Map-style data sets of samples."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch.utils.data import Dataset

from simtrain.data.samples import SimilarityGroupSample, SimilarityPairSample
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
        samples: The pairs, at least one.

    Raises:
        DataError: There is no sample, or one is not a :class:`SimilarityPairSample`.

    Example:
        >>> data = SimilarityPairDataset([SimilarityPairSample("how old", "age()")])
        >>> len(data), data[0].obj_a
        (1, 'how old')
    """

    def __init__(self, samples: Sequence[SimilarityPairSample]) -> None:
        self.samples = checked(samples, SimilarityPairSample)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> SimilarityPairSample:
        return self.samples[index]


class SimilarityGroupDataset(Dataset[SimilarityGroupSample]):
    """Items with a group label, from group samples or from any data set that gives ``(item, label)``.

    Labels may be any hashable. They are mapped to 0, 1, ... in order of appearance unless all of them are
    integers, which are kept as they are; :attr:`label_names` tells which label a number stands for.

    Args:
        source: Group samples, ``(item, label)`` tuples, or a sized data set of such tuples (torchvision style).
            It is read lazily and never changed; only its labels are read once, by the first access that needs them.

    Raises:
        DataError: The source is empty or its elements are neither group samples nor pairs of item and label.

    Example:
        >>> data = SimilarityGroupDataset([("red shoe", "shoes"), ("blue hat", "hats"), ("red boot", "shoes")])
        >>> [data[i].group for i in range(3)], data.label_names
        ([0, 1, 0], {0: 'shoes', 1: 'hats'})
    """

    def __init__(self, source: SizedSource | Sequence[Any]) -> None:
        if len(source) == 0:
            raise DataError("a group data set needs at least one (item, label), got none")
        self._source = source
        labels = [item_and_label(source[index], index)[1] for index in range(len(source))]
        self._groups, self.label_names = number_labels(labels)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> SimilarityGroupSample:
        item, _ = item_and_label(self._source[index], index)
        return SimilarityGroupSample(item, self._groups[index])


def checked(samples: Sequence[SampleT], kind: type[SampleT]) -> list[SampleT]:
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
    if isinstance(element, (tuple, list)) and len(element) == 2:
        label = element[1].item() if hasattr(element[1], "item") else element[1]
        if isinstance(label, Hashable):
            return element[0], label
    raise DataError(f"element {index} should be a SimilarityGroupSample or (item, label), got {element!r:.80}")


def number_labels(labels: Sequence[Hashable]) -> tuple[list[int], dict[int, Hashable]]:
    """Map labels to integers: integers stay as they are, anything else is numbered by first appearance.

    Example:
        >>> number_labels(["b", "a", "b"])
        ([0, 1, 0], {0: 'b', 1: 'a'})
        >>> number_labels([7, 7, 2])[0]
        [7, 7, 2]
    """
    if all(isinstance(label, int) and not isinstance(label, bool) for label in labels):
        groups = [int(label) for label in labels]  # type: ignore[call-overload]
        return groups, {group: group for group in groups}
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return [numbers[label] for label in labels], {number: label for label, number in numbers.items()}
