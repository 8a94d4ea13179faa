"""CUB-200-2011: birds; the first hundred classes train, the others test."""

from __future__ import annotations

from pathlib import Path

from simtrain.errors import DataError
from simtrain.evaluation.image_sets.image_list import existing, found_file, listed_rows, whole
from simtrain.evaluation.image_sets.image_set import ImageSet, check_size, split_by_class, split_sizes

NAME = "CUB-200-2011"
PUBLISHED = {"training images": 5_864, "test images": 5_924, "classes": 200}
LAST_TRAINING_CLASS = 100


def read_cub200(folder: str | Path, *, official: bool = True) -> ImageSet:
    """Read CUB-200-2011 as the metric-learning papers split it: classes 1 to 100 train, 101 to 200 test.

    Each test image searches all others; Recall@1, 2, 4 and 8 are reported.

    Args:
        folder: ``CUB_200_2011`` of the release, or the folder that it lies in; with ``images.txt``,
            ``image_class_labels.txt``, ``classes.txt`` (optional) and ``images``.
        official: Refuse a set with other numbers of images than the published one.

    Raises:
        DataError: A file, an image or a line is missing or malformed.

    Reference:
        Wah et al.: The Caltech-UCSD Birds-200-2011 Dataset, 2011; the split of Oh Song et al.: Deep Metric Learning
        via Lifted Structured Feature Embedding, 2016.
    """
    given = Path(folder)
    source = found_file(given, ["images.txt", "CUB_200_2011/images.txt"], NAME)
    root = source.parent
    labels = {}
    for place, (image, label) in listed_rows(found_file(root, ["image_class_labels.txt"], NAME), ["image", "class"]):
        labels[image] = whole(label, place, "the class")
    names, classes = [], []
    for place, (image, name) in listed_rows(source, ["image", "path"]):
        if image not in labels:
            raise DataError(f"{place}: image_class_labels.txt has no class for image {image}; it is truncated")
        names.append(name)
        classes.append(labels[image])
    if len(names) != len(labels):
        raise DataError(
            f"{source} lists {len(names):,} images, image_class_labels.txt {len(labels):,}: one is truncated"
        )
    paths = existing(root / "images", names, NAME)
    called = _class_names(root, set(classes))
    train, test = split_by_class(paths, classes, LAST_TRAINING_CLASS, called)
    check_size(NAME, source, split_sizes(train, test), PUBLISHED, official)
    return ImageSet(NAME, train, test, k=(1, 2, 4, 8))


def _class_names(root: Path, classes: set[int]) -> dict[int, str] | None:
    path = root / "classes.txt"
    if not path.is_file():
        return None
    called = {whole(label, place, "the class"): name for place, (label, name) in listed_rows(path, ["class", "name"])}
    lacking = classes - called.keys()
    if lacking:
        raise DataError(f"{path} has no name for class {min(lacking)}; it is truncated")
    return called
