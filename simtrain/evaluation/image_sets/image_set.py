"""An image set as the papers use it: classes to train on, other classes to test on."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from simtrain.data import QueryGallery, SimilarityGroupDataset
from simtrain.data.table_items import LabelledItems
from simtrain.errors import DataError


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Training images, and the test that the papers report.

    Attributes:
        name: Name of the set.
        train: Paths of the training images with their classes.
        test: What :func:`simtrain.evaluate` takes: images that search each other, or queries and a gallery.
        k: Depths of the papers' Recall@K. It is the share of queries that find an image of their class among the
            first K, which is called ``hit_rate@k`` here.

    Raises:
        DataError: A class is in both halves.

    Example:
        >>> halves = [grouped([Path("a.jpg"), Path("b.jpg")], [n, n]) for n in (1, 2)]
        >>> ImageSet("mine", *halves, k=(1, 2)).metrics
        ('hit_rate@1', 'hit_rate@2')
    """

    name: str
    train: SimilarityGroupDataset
    test: SimilarityGroupDataset | QueryGallery
    k: tuple[int, ...]

    def __post_init__(self) -> None:
        both = set(_labels(self.train)) & set(_test_labels(self.test))
        if both:
            raise DataError(
                f"{self.name}: {len(both)} classes are in training and test, such as {min(both)}; they should be apart"
            )

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the papers' figures among those of :func:`simtrain.evaluate`."""
        return tuple(f"hit_rate@{k}" for k in self.k)


def grouped(
    paths: Sequence[Path], labels: Sequence[int], names: Mapping[int, Hashable] | None = None
) -> SimilarityGroupDataset:
    """Images with their classes; ``names`` says what a class is called."""
    there = set(labels)
    kept = None if names is None else {number: name for number, name in names.items() if number in there}
    values = labels if kept is None else [kept[label] for label in labels]
    return SimilarityGroupDataset(LabelledItems(list(paths), list(values)), kept)


def split_by_class(
    paths: Sequence[Path], labels: Sequence[int], last: int, names: Mapping[int, Hashable] | None = None
) -> tuple[SimilarityGroupDataset, SimilarityGroupDataset]:
    """Images of classes up to ``last`` to train on, the others to test on.

    Raises:
        DataError: One of the two has no image.

    Example:
        >>> train, test = split_by_class([Path("a.jpg"), Path("b.jpg")], [3, 1], last=2)
        >>> train[0].obj.name, test[0].obj.name
        ('b.jpg', 'a.jpg')
    """
    halves = [[row for row, label in enumerate(labels) if (label <= last) == train] for train in (True, False)]
    if not all(halves):
        raise DataError(f"there are no images of classes {'up to' if not halves[0] else 'above'} {last}")
    train, test = (grouped([paths[row] for row in half], [labels[row] for row in half], names) for half in halves)
    return train, test


def split_sizes(train: SimilarityGroupDataset, test: SimilarityGroupDataset) -> dict[str, int]:
    """How many images of how many classes there are."""
    return {"training images": len(train), "test images": len(test), "classes": len({*_labels(train), *_labels(test)})}


def check_size(name: str, source: Path, found: Mapping[str, int], published: Mapping[str, int], official: bool) -> None:
    """Raise a :class:`DataError` where a set has not the published numbers of images and classes."""
    wrong = [what for what, number in published.items() if found[what] != number]
    if official and wrong:
        what = wrong[0]
        raise DataError(
            f"{source} lists {found[what]:,} {what}, {name} has {published[what]:,}: the file is truncated or of "
            "another release; official=False takes it as it is"
        )


def check_half(name: str, found: Mapping[str, int]) -> None:
    """Raise a :class:`DataError` where a part has no image."""
    for what, number in found.items():
        if not number:
            raise DataError(f"{name}: there are no {what}; the list is truncated")


def _labels(data: SimilarityGroupDataset) -> list[int]:
    labels: list[int] = data.groups.tolist()
    return labels


def _test_labels(test: SimilarityGroupDataset | QueryGallery) -> list[int]:
    return [*test.query_labels, *test.gallery_labels] if isinstance(test, QueryGallery) else _labels(test)
