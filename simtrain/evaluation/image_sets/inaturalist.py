"""iNaturalist 2018 as Smooth-AP splits it: photos of animals and plants; species that are apart train and test."""

from __future__ import annotations

from pathlib import Path

from simtrain.data import SimilarityGroupDataset
from simtrain.errors import DataError
from simtrain.evaluation.image_sets.image_list import existing, found_file, listed_rows
from simtrain.evaluation.image_sets.image_set import ImageSet, check_size, grouped

NAME = "iNaturalist-2018"
PUBLISHED = {"train": {"images": 325_846, "classes": 5_690}, "test": {"images": 136_093, "classes": 2_452}}


def read_inaturalist(folder: str | Path, *, official: bool = True) -> ImageSet:
    """Read iNaturalist 2018 with the metric-learning split of Smooth-AP.

    Each test image searches all others; Recall@1, 4, 16 and 32 are reported. The split is not part of the data set:
    it is two lists that the paper's authors publish, with the path of an image in each line
    (``train_val2018/Aves/2761/0a1b.jpg``), whose last two folders are the species.

    Args:
        folder: The folder that holds ``train_val2018``, and ``Inaturalist_train_set1.txt`` and
            ``Inaturalist_test_set1.txt`` (there or in ``Inat_dataset_splits``).
        official: Refuse a set with other numbers of images and species than the published one.

    Raises:
        DataError: A file, an image or a line is missing or malformed.

    Reference:
        Brown et al.: Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval, 2020; Van Horn et al.: The
        iNaturalist Species Classification and Detection Dataset, 2018.
    """
    species: dict[str, int] = {}
    train, test = (_read_half(Path(folder), half, species, official) for half in ("train", "test"))
    return ImageSet(NAME, train, test, k=(1, 4, 16, 32))


def _read_half(folder: Path, half: str, species: dict[str, int], official: bool) -> SimilarityGroupDataset:
    file = f"Inaturalist_{half}_set1.txt"
    source = found_file(folder, [f"Inat_dataset_splits/{file}", file], NAME)
    names, classes = [], []
    for place, (name,) in listed_rows(source, ["path"]):
        parts = name.split("/")
        if len(parts) < 3:
            raise DataError(f"{place}: expected a path such as train_val2018/Aves/2761/0a1b.jpg, got {name!r}")
        names.append(name)
        classes.append(species.setdefault("/".join(parts[-3:-1]), len(species)))
    check_size(NAME, source, {"images": len(names), "classes": len(set(classes))}, PUBLISHED[half], official)
    return grouped(existing(folder, names, NAME), classes, {number: name for name, number in species.items()})
