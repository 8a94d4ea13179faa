"""Images in one sub-folder a group, as torchvision's ImageFolder has them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from simtrain.data.datasets import SimilarityGroupDataset
from simtrain.data.image_check import OnError, check_images
from simtrain.data.table_items import LabelledItems
from simtrain.errors import DataError

IMAGE_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def read_image_folder(
    path: str | Path,
    extensions: Sequence[str] = IMAGE_EXTENSIONS,
    on_error: OnError = "raise",
    decode: bool | None = None,
) -> SimilarityGroupDataset:
    """Read a folder whose sub-folders are the groups: ``shoes/1.jpg``, ``shoes/left/2.jpg``, ``hats/3.jpg``.

    Groups are the sub-folders in the order of their names, numbered from 0; an image lies in its group's folder or
    anywhere below it. Images that lie in no sub-folder, and whatever starts with a dot, are left out.

    Args:
        path: The folder.
        extensions: How names of images end, in small or capital letters.
        on_error: What to do about an image that cannot be opened: ``"raise"`` names it; ``"skip"`` leaves it out,
            logs how many there were, and keeps their names in the data set's ``skipped``.
        decode: Also decode every image while checking; finds files that end too early, and takes as long as reading
            all of them in training. Default: with ``on_error="skip"`` only.

    Returns:
        Paths of the images with their groups, in the order of their names.

    Raises:
        DataError: There is no such folder, it has no sub-folder, one holds no image, or an image cannot be read; the
            message gives its number among all images.
        MissingExtraError: Pillow is not installed.
    """
    root = Path(path)
    suffixes = _suffixes(extensions)
    folders = _sub_folders(root, suffixes)
    found = [_images(folder, suffixes) for folder in folders]
    for folder, images in zip(folders, found, strict=True):
        if not images:
            raise DataError(f"the sub-folder {str(folder)!r} holds no image; names should end in {', '.join(suffixes)}")
    images = [image for images in found for image in images]
    labels = [folder.name for folder, images in zip(folders, found, strict=True) for _ in images]
    readable, skipped = check_images(images, lambda row: f"{root}, image {row}", on_error, decode)
    # The numbers of the groups do not depend on which images can be read.
    names = {number: folder.name for number, folder in enumerate(folders)}
    source = LabelledItems([images[row] for row in readable], [labels[row] for row in readable])
    return SimilarityGroupDataset(source, names, skipped)


def _suffixes(extensions: Sequence[str]) -> tuple[str, ...]:
    given = (extensions,) if isinstance(extensions, str) else tuple(extensions)
    if not given:
        raise DataError("extensions should name one ending at least, such as '.jpg'")
    return tuple("." + extension.lower().removeprefix(".") for extension in given)


def _sub_folders(root: Path, suffixes: tuple[str, ...]) -> list[Path]:
    if not root.is_dir():
        raise DataError(f"there is no folder {str(root)!r}; give one that has a sub-folder of images for each group")
    entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    folders = [entry for entry in entries if entry.is_dir()]
    if folders:
        return folders
    loose = sum(entry.name.lower().endswith(suffixes) for entry in entries)
    have = f"{loose} images lie in it directly" if loose else "it is empty" if not entries else "it holds only files"
    raise DataError(f"{str(root)!r} has no sub-folders ({have}); put the images of each group into one of its own")


def _images(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    images = []
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = sorted(name for name in files if not name.startswith(".") and name.lower().endswith(suffixes))
        images += [Path(place, name) for name in names]
    return images
