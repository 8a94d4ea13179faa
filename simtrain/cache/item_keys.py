"""Keys of items: what an item is, in 16 bytes."""

from __future__ import annotations

import dataclasses
import itertools
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from jaxtyping import UInt8

from simtrain.cache.config import KeyExtractor
from simtrain.cache.digests import Digest, class_name, node, pair_digests, value_digest
from simtrain.cache.item_numbers import ItemNumbers
from simtrain.errors import CacheError, DataError

KEY_BYTES = 16
#: EXIF tag of an image that is to be turned before it is looked at.
ORIENTATION = 0x0112
KEYS_AT_ONCE = 4096


class UnidentifiedItemError(CacheError):
    """An item has no content that it could be known by."""


def item_key(item: Any) -> bytes:
    """Digest of an item's content, equal in every process.

    Args:
        item: A text, bytes, number, numpy array, tensor, PIL image, :class:`pathlib.Path` (known by its place, size
            and time of change), dataclass, or a mapping, list, tuple or set of such values. The order of a mapping
            counts, since a collate function may go by it; a text that is a path is known by the text alone.

    Returns:
        16 bytes. Values of different types have different keys: ``"1"`` is not ``1``.

    Raises:
        CacheError: The item is of another kind; a key extractor is needed.
        DataError: The item is the path of a file that does not exist, or of a folder.

    Example:
        >>> item_key("1") == item_key(1)
        False
    """
    return value_digest(item, uncommon_digest, ordered=True)


def item_keys(
    items: Iterable[Any], key_extractor: KeyExtractor | None = None, numbers: ItemNumbers | None = None
) -> UInt8[np.ndarray, "n 16"]:
    """Keys of many items.

    Args:
        items: The items, or anything that gives them one by one; none is kept.
        key_extractor: Called with each item; its answer is the item's key. Default: the content.
        numbers: Stand for items that have no content to go by; None refuses such items.

    Returns:
        One key per row.

    Raises:
        CacheError: An item or an extracted key is of a kind that has no digest.

    Example:
        >>> item_keys(["a", "b"]).shape
        (2, 16)
    """
    if key_extractor is not None:
        keys = (extracted_key(key_extractor, item) for item in items)
    else:
        # Data sets are mostly texts: digest those here, without a call each. Equal to digests.scalar_digest.
        digest = xxhash.xxh3_128_digest
        keys = (
            digest(b"str\0" + item.encode("utf-8", "surrogatepass"))
            if type(item) is str
            else _key(item, position, numbers)
            for position, item in enumerate(items)
        )
    content = bytearray()  # grows by 16 bytes an item: a list of keys would take four times that
    while part := b"".join(itertools.islice(keys, KEYS_AT_ONCE)):
        content += part
    return np.frombuffer(content, dtype=np.uint8).reshape(-1, KEY_BYTES)


def _key(item: Any, position: int, numbers: ItemNumbers | None) -> bytes:
    if numbers is None:
        return item_key(item)
    try:
        return item_key(item)
    except UnidentifiedItemError:
        return numbers.key(position)


def extracted_key(key_extractor: KeyExtractor, item: Any) -> bytes:
    """Digest of what a key extractor says of an item."""
    value = key_extractor(item)
    try:
        return item_key(value)
    except CacheError as error:
        raise CacheError(
            f"a key extractor must give texts, bytes, numbers or tuples of them; for the item {item!r:.80} it gave "
            f"{value!r:.80} of type {type(value).__name__}"
        ) from error


def uncommon_digest(value: Any) -> Digest:
    """Digest of a dataclass, a path or an image."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = dict.fromkeys([field.name for field in dataclasses.fields(value)] + [*getattr(value, "__dict__", ())])
        fields = [(name, getattr(value, name)) for name in names]  # and what was put there besides
        return node("dataclass", class_name(value).encode(), *pair_digests(fields, uncommon_digest, ordered=True))
    if isinstance(value, os.PathLike):
        return file_digest(Path(value))
    if all(hasattr(value, name) for name in ("mode", "size", "tobytes")):
        return image_digest(value)
    raise UnidentifiedItemError(
        f"an item of type {type(value).__name__} cannot be identified by its content; "
        f"set CacheConfig(key_extractors=...) to a function that gives each item's key"
    )


def file_digest(path: Path) -> Digest:
    """Digest of a file's place, size and time of change; its content is not read."""
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(
            f"the item {str(path)!r} is the path of a file that cannot be read: {error.strerror}"
        ) from error
    if stat.S_ISDIR(status.st_mode):
        raise DataError(
            f"the item {str(path)!r} is a folder, whose time of change says nothing of the files in it; set "
            f"CacheConfig(key_extractors=...) to a function that gives a key of all that is read from it"
        )
    return node("path", os.fsencode(path.absolute()), f"{status.st_size} {status.st_mtime_ns}".encode())


def image_digest(image: Any) -> Digest:
    """Digest of a PIL image, told by its attributes so that Pillow is not needed."""
    if getattr(image, "n_frames", 1) > 1:
        return frames_digest(image)
    return frame_digest(image)


def frames_digest(image: Any) -> Digest:
    """Digest of all frames of a film, and of the frame that it stands at; it is left standing there."""
    at = image.tell()
    frames = []
    for number in range(image.n_frames):
        image.seek(number)
        frames.append(frame_digest(image))
    image.seek(at)
    return node("frames", str(at).encode(), *frames)


def frame_digest(image: Any) -> Digest:
    """Digest of one picture."""
    looks: list[Any] = [str(image.mode), tuple(int(side) for side in image.size)]
    # What the usual first steps of preprocessing read besides the pixels: convert("RGBA") and exif_transpose.
    looks.append(image.info.get("transparency") if hasattr(image, "info") else None)
    looks.append(image.getexif().get(ORIENTATION) if hasattr(image, "getexif") else None)
    if image.mode in ("P", "PA"):  # pixels are numbers of colours there
        looks.append(image.getpalette(None))  # with its transparency, where it has one
    return node("image", value_digest(looks, uncommon_digest, ordered=True), image.tobytes())
