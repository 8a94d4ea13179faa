"""In-Shop Clothes Retrieval of DeepFashion: photos of shops; queries search a gallery."""

from __future__ import annotations

from pathlib import Path

from simtrain.data import QueryGallery
from simtrain.errors import DataError
from simtrain.evaluation.image_sets.image_list import existing, found_file, listed_rows, whole
from simtrain.evaluation.image_sets.image_set import ImageSet, check_half, check_size, grouped
from simtrain.evaluation.text_files import opened

NAME = "In-Shop Clothes Retrieval"
COLUMNS = ("image_name", "item_id", "evaluation_status")
PLACES = [f"{place}list_eval_partition.txt" for place in ("", "Eval/", "Anno/")]
PARTS = ("train", "query", "gallery")
PUBLISHED = {"train images": 25_882, "query images": 14_218, "gallery images": 12_612, "items": 7_982}


def read_in_shop(folder: str | Path, *, official: bool = True) -> ImageSet:
    """Read In-Shop Clothes Retrieval with its own split: queries search the gallery for the same item.

    Recall@1, 10, 20 and 30 are reported.

    Args:
        folder: The folder with ``list_eval_partition.txt`` (there, in ``Eval`` or in ``Anno``) and the images under
            ``img`` (there or in ``Img``).
        official: Refuse a set with other numbers of images and items than the published one.

    Raises:
        DataError: The file or an image is missing, a line is malformed, or there are fewer lines than the first says.

    Reference:
        Liu et al.: DeepFashion: Powering Robust Clothes Recognition and Retrieval with Rich Annotations, 2016.
    """
    root = Path(folder)
    source = found_file(root, PLACES, NAME)
    parts: dict[str, tuple[list[str], list[int]]] = {part: ([], []) for part in PARTS}
    items: dict[str, int] = {}
    for place, (name, item, part) in listed_rows(source, COLUMNS, skip=2):
        if part not in parts:
            raise DataError(f"{place}: the status is train, query or gallery, got {part!r}")
        parts[part][0].append(name)
        parts[part][1].append(items.setdefault(item, len(items)))
    _check_count(source, sum(len(names) for names, _ in parts.values()))
    found = {f"{part} images": len(names) for part, (names, _) in parts.items()}
    check_size(NAME, source, {**found, "items": len(items)}, PUBLISHED, official)
    check_half(NAME, found)
    images = root / "Img" if (root / "Img" / "img").is_dir() else root
    train, queries, gallery = (existing(images, parts[part][0], NAME) for part in PARTS)
    called = {number: item for item, number in items.items()}
    labels = {part: numbers for part, (_, numbers) in parts.items()}
    test = QueryGallery(queries, gallery, labels["query"], labels["gallery"], label_names=called)
    return ImageSet(NAME, grouped(train, labels["train"], called), test, k=(1, 10, 20, 30))


def _check_count(source: Path, listed: int) -> None:
    with opened(source, "a list of images") as file:
        expected = whole(file.readline().strip(), f"{source}, line 1", "the number of images")
    if listed != expected:
        raise DataError(f"{source} says that it lists {expected:,} images and lists {listed:,}; it is truncated")
