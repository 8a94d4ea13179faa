"""Cars196: models of cars; the first 98 classes train, the others test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from simtrain.errors import DataError
from simtrain.evaluation.image_sets.image_list import existing, found_file
from simtrain.evaluation.image_sets.image_set import ImageSet, check_size, split_by_class, split_sizes

NAME = "Cars196"
PUBLISHED = {"training images": 8_054, "test images": 8_131, "classes": 196}
LAST_TRAINING_CLASS = 98


def read_cars196(folder: str | Path, *, official: bool = True) -> ImageSet:
    """Read Cars196 as the metric-learning papers split it: classes 1 to 98 train, 99 to 196 test.

    Each test image searches all others; Recall@1, 2, 4 and 8 are reported. The release's own split, which has every
    class in both halves, is for classification and not looked at.

    Args:
        folder: The folder with ``cars_annos.mat`` and ``car_ims``.
        official: Refuse a set with other numbers of images than the published one.

    Raises:
        DataError: The file or an image is missing, or the file is damaged or another one.

    Reference:
        Krause et al.: 3D Object Representations for Fine-Grained Categorization, 2013; the split of Oh Song et al.:
        Deep Metric Learning via Lifted Structured Feature Embedding, 2016.
    """
    root = Path(folder)
    source = found_file(root, ["cars_annos.mat"], NAME)
    names, classes, called = _annotations(source)
    paths = existing(root, names, NAME)
    train, test = split_by_class(paths, classes, LAST_TRAINING_CLASS, called)
    check_size(NAME, source, split_sizes(train, test), PUBLISHED, official)
    return ImageSet(NAME, train, test, k=(1, 2, 4, 8))


def _annotations(source: Path) -> tuple[list[str], list[int], dict[int, str] | None]:
    """Image names, classes, and what the classes are called."""
    from scipy.io import loadmat

    try:
        content: dict[str, Any] = loadmat(str(source), squeeze_me=True)
        rows = np.atleast_1d(content["annotations"])
        names = [str(name) for name in rows["relative_im_path"]]
        classes = [int(label) for label in rows["class"]]
    except Exception as error:  # the reader of .mat files raises whatever a damaged file makes it stumble over
        raise DataError(
            f"{source} cannot be read as cars_annos.mat (a struct 'annotations' with relative_im_path and class): "
            f"{error}"
        ) from None
    called = {number: str(name) for number, name in enumerate(np.atleast_1d(content.get("class_names", [])), 1)}
    return names, classes, called if set(classes) <= called.keys() else None
