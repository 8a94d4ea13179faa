"""Finding the images that cannot be read before training does."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

from simtrain.errors import DataError, import_extra

OnError = Literal["raise", "skip"]

_logger = logging.getLogger(__name__)


def check_images(
    items: Sequence[Any], place: Callable[[int], str], on_error: OnError, decode: bool | None = None
) -> tuple[list[int], list[str]]:
    """Open every item as an image.

    Args:
        items: Paths of files. Other items, images that are there already, are asked for and left at that.
        place: What messages call an item, by its number.
        on_error: ``"raise"`` names the first that cannot be read; ``"skip"`` leaves all such out and logs their number.
        decode: Also decode every image: finds files that end too early, and takes as long as reading them in training.
            Default: where images are to be skipped, since a truncated one that is left in would end the training.

    Returns:
        Numbers of the items that can be read, and the names of the others.

    Raises:
        DataError: An image cannot be read, or none can.
        MissingExtraError: Pillow is not installed.
    """
    import_extra("PIL.Image", "vision")
    if on_error not in ("raise", "skip"):
        raise DataError(f"on_error should be 'raise' or 'skip', got {on_error!r}")
    decode = on_error == "skip" if decode is None else decode
    readable: list[int] = []
    skipped: list[str] = []
    for row in range(len(items)):
        name, fault = _fault(items, row, place, decode)
        if fault is None:
            readable.append(row)
        elif on_error == "raise":
            raise DataError(
                f"{place(row)}: the image {name!r} cannot be read: {fault}. Mend it, remove it, or pass on_error='skip'"
            )
        else:
            skipped.append(name)
    _report(skipped, len(items))
    return readable, skipped


def _fault(
    items: Sequence[Any], row: int, place: Callable[[int], str], decode: bool
) -> tuple[str, BaseException | str | None]:
    name = place(row)
    # A damaged file makes Pillow, or whoever decodes the items, raise errors of nearly any kind.
    try:
        item = items[row]
        if isinstance(item, (str, os.PathLike)):
            name = os.fspath(item)
            _open(name, decode)
    except Exception as error:
        return name, str(error) or type(error).__name__
    return name, None


def _open(path: str, decode: bool) -> None:
    image_module = import_extra("PIL.Image", "vision")
    with image_module.open(path) as image:
        image.verify()
    if decode:
        # An image that has been verified cannot be read any more.
        with image_module.open(path) as image:
            image.load()


def _report(skipped: Sequence[str], total: int) -> None:
    if not skipped:
        return
    some = ", ".join(skipped[:3]) + (", ..." if len(skipped) > 3 else "")
    if len(skipped) == total:
        raise DataError(f"none of the {total} images can be read: {some}")
    _logger.warning("skipped %d of %d images that cannot be read: %s", len(skipped), total, some)
