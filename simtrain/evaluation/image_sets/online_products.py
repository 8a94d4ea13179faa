"""Stanford Online Products: photos from a marketplace; each product is a class."""

from __future__ import annotations

from pathlib import Path

from simtrain.data import SimilarityGroupDataset
from simtrain.evaluation.image_sets.image_list import existing, found_file, listed_rows, whole
from simtrain.evaluation.image_sets.image_set import ImageSet, check_size, grouped

NAME = "Stanford Online Products"
COLUMNS = ("image_id", "class_id", "super_class_id", "path")
PUBLISHED = {"train": {"images": 59_551, "classes": 11_318}, "test": {"images": 60_502, "classes": 11_316}}


def read_online_products(folder: str | Path, *, official: bool = True) -> ImageSet:
    """Read Stanford Online Products with its own split: ``Ebay_train.txt`` and ``Ebay_test.txt``.

    Each test image searches all others; Recall@1, 10, 100 and 1000 are reported.

    Args:
        folder: ``Stanford_Online_Products`` of the release, or the folder that it lies in.
        official: Refuse a set with other numbers of images and classes than the published one.

    Raises:
        DataError: A file, an image or a line is missing or malformed.

    Reference:
        Oh Song et al.: Deep Metric Learning via Lifted Structured Feature Embedding, 2016.
    """
    train, test = (_read_half(Path(folder), half, official) for half in ("train", "test"))
    return ImageSet(NAME, train, test, k=(1, 10, 100, 1000))


def _read_half(folder: Path, half: str, official: bool) -> SimilarityGroupDataset:
    file = f"Ebay_{half}.txt"
    source = found_file(folder, [file, f"Stanford_Online_Products/{file}"], NAME)
    names, classes = [], []
    for place, (_, label, _, name) in listed_rows(source, COLUMNS, skip=1):
        names.append(name)
        classes.append(whole(label, place, "the class"))
    check_size(NAME, source, {"images": len(names), "classes": len(set(classes))}, PUBLISHED[half], official)
    return grouped(existing(source.parent, names, NAME), classes)
