"""Lists of images: files with a fixed number of columns, and the images that they name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from simtrain.errors import DataError
from simtrain.evaluation.text_files import opened


def found_file(root: Path, places: Sequence[str], name: str) -> Path:
    """The first of some places in a folder where there is a file.

    Raises:
        DataError: There is none, or no such folder.
    """
    for place in places:
        if (root / place).is_file():
            return root / place
    have = "there is no such folder" if not root.is_dir() else "it has none"
    expected = " or ".join(repr(place) for place in places)
    raise DataError(f"{name} in the folder {str(root)!r} should have the file {expected}; {have}")


def listed_rows(path: Path, columns: Sequence[str], skip: int = 0) -> Iterator[tuple[str, list[str]]]:
    """Place and columns of each line after the first ``skip``; blank lines are passed over.

    Raises:
        DataError: A line has another number of columns, or there is none.
    """
    shape, rows = " ".join(columns), 0
    with opened(path, "a list of images") as file:
        for number, line in enumerate(islice(file, skip, None), skip + 1):
            row = line.split()
            if not row:
                continue
            if len(row) != len(columns):
                raise DataError(
                    f"{path}, line {number}: expected {len(columns)} columns ({shape}), got {line.strip()!r:.100}"
                )
            rows += 1
            yield f"{path}, line {number}", row
    if not rows:
        raise DataError(f"{path} lists no images; a line is: {shape}")


def whole(word: str, place: str, what: str) -> int:
    """A column's integer.

    Raises:
        DataError: It is none.
    """
    try:
        return int(word)
    except ValueError:
        raise DataError(f"{place}: {what} should be an integer, got {word!r}") from None


def existing(root: Path, names: Sequence[str], title: str) -> list[Path]:
    """Paths of images in a folder; each of its folders is listed once, not every image asked for.

    Raises:
        DataError: An image is not there.
    """
    folders = {name.rpartition("/")[0] for name in names}
    there = {f"{folder}/{entry}".lstrip("/") for folder in folders for entry in _listing(root / folder)}
    lacking = [name for name in names if name not in there]
    if lacking:
        example = str(root / lacking[0])
        raise DataError(
            f"{title}: {len(lacking):,} of {len(names):,} listed images are not there, such as {example!r}; "
            "unpack the images into that folder"
        )
    return [root / name for name in names]


def _listing(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []
