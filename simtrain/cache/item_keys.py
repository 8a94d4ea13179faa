"""Keys of items: what an item is, in 16 bytes."""

from __future__ import annotations

import dataclasses
import itertools
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import xxhash
from jaxtyping import UInt8

from simtrain.cache.config import KeyExtractor
from simtrain.cache.digests import Digest, full_name, marked_digest, node, pair_digests, value_digest
from simtrain.cache.identity import Identity
from simtrain.cache.item_numbers import ItemNumbers
from simtrain.cache.module_parts import ignored_names
from simtrain.errors import CacheError, DataError

KEY_BYTES = 16
#: EXIF tag of an image that is to be turned before it is looked at.
ORIENTATION = 0x0112
#: Where a picture says how its numbers are meant.
MEANINGS = ("icc_profile", "gamma", "chromaticity", "srgb")
KEYS_AT_ONCE = 4096
_PATHS = (type(Path()), PurePosixPath, PureWindowsPath)


class UnidentifiedItemError(CacheError):
    """An item has no content that it could be known by."""


def item_key(item: Any) -> bytes:
    """Digest of an item's content, equal in every process.

    Args:
        item: A text, bytes, number, numpy array, tensor, PIL image (known by its pixels, colours, transparency and
            orientation), :class:`pathlib.Path` (known by its place, size and time of change), dataclass, or a mapping,
            list, tuple or set of such values. The order of a mapping counts, since a collate function may go by it,
            and so does the code of a class of yours, such as a dataclass with methods (what its ``cache_ignores``
            names is left out); a text that is a path is known by the text alone.

    Returns:
        16 bytes. Values of different types have different keys: ``"1"`` is not ``1``.

    Raises:
        CacheError: The item is of another kind; a key extractor is needed.
        DataError: The item is the path of a file that does not exist, or of a folder.

    Example:
        >>> item_key("1") == item_key(1)
        False
    """
    return ItemContent().digest(item)


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
    content = ItemContent()
    if key_extractor is not None:
        keys = (extracted_key(key_extractor, item, content) for item in items)
    else:
        # Data sets are mostly texts: digest those here, without a call each. Equal to digests.scalar_digest.
        digest = xxhash.xxh3_128_digest
        keys = (
            digest(b"str\0" + item.encode("utf-8", "surrogatepass"))
            if type(item) is str
            else _key(item, position, numbers, content)
            for position, item in enumerate(items)
        )
    joined = bytearray()  # grows by 16 bytes an item: a list of keys would take four times that
    while part := b"".join(itertools.islice(keys, KEYS_AT_ONCE)):
        joined += part
    return np.frombuffer(joined, dtype=np.uint8).reshape(-1, KEY_BYTES)


def _key(item: Any, position: int, numbers: ItemNumbers | None, content: ItemContent) -> bytes:
    if numbers is None:
        return content.digest(item)
    try:
        return content.digest(item)
    except UnidentifiedItemError:
        return numbers.key(position)


def extracted_key(key_extractor: KeyExtractor, item: Any, content: ItemContent) -> bytes:
    """Digest of what a key extractor says of an item."""
    value = key_extractor(item)
    try:
        return content.digest(value)
    except CacheError as error:
        raise CacheError(
            f"a key extractor must give texts, bytes, numbers or tuples of them; for the item {item!r:.80} it gave "
            f"{value!r:.80} of type {type(value).__name__}"
        ) from error


class ItemContent:
    """Digests of items; reads the code of each class once."""

    def __init__(self) -> None:
        self._classes: dict[type, Digest] = {}

    def digest(self, item: Any) -> Digest:
        """Digest of an item of any kind that has content."""
        return value_digest(item, self._of_uncommon, ordered=True)

    def _of_uncommon(self, value: Any) -> Digest:
        if isinstance(value, type):
            return self._of_class(value)
        if dataclasses.is_dataclass(value):
            known = [field.name for field in dataclasses.fields(value)]
            names = dict.fromkeys([*known, *getattr(value, "__dict__", ())])  # and what was put there besides
            pairs = pair_digests([(name, getattr(value, name)) for name in names], self._of_uncommon, ordered=True)
            return node("dataclass", self._of_class(type(value)), *pairs)
        if isinstance(value, PurePath):
            place = file_digest(Path(value))
            return place if type(value) in _PATHS else marked_digest(value, place, self._of_uncommon, ordered=True)
        if is_image(value):
            return image_digest(value, self)
        raise UnidentifiedItemError(
            f"an item of type {type(value).__name__} cannot be identified by its content; "
            f"set CacheConfig(key_extractors=...) to a function that gives each item's key"
        )

    def _of_class(self, kind: type) -> Digest:
        if kind not in self._classes:
            identity = Identity(ignored=ignored_names(kind))
            try:
                self._classes[kind] = bytes.fromhex(identity.whole("class of an item", identity.of(kind)))
            except CacheError as error:
                raise UnidentifiedItemError(
                    f"the class of an item, {full_name(kind)}: {error}; or set CacheConfig(key_extractors=...) to a "
                    f"function that gives each item's key"
                ) from error
        return self._classes[kind]


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


def is_image(value: Any) -> bool:
    """Whether a value is a PIL image; Pillow is not needed for the answer."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(value, pillow.Image)


def image_digest(image: Any, content: ItemContent) -> Digest:
    """Digest of a PIL image."""
    if getattr(image, "n_frames", 1) > 1:
        return frames_digest(image, content)
    return frame_digest(image, content)


def frames_digest(image: Any, content: ItemContent) -> Digest:
    """Digest of all frames of a film, and of the frame that it stands at; it is left standing there."""
    at = image.tell()
    frames = []
    for number in range(image.n_frames):
        image.seek(number)
        frames.append(frame_digest(image, content))
    image.seek(at)
    return node("frames", str(at).encode(), *frames)


def frame_digest(image: Any, content: ItemContent) -> Digest:
    """Digest of one picture."""
    pixels = image.tobytes()
    looks: list[Any] = [str(image.mode), tuple(int(side) for side in image.size)]
    # What the usual first steps of preprocessing read besides the pixels: convert("RGBA") and exif_transpose.
    looks += [image.info.get("transparency"), image.getexif().get(ORIENTATION)]
    looks += [(name, image.info[name]) for name in MEANINGS if name in image.info]
    if image.mode in ("P", "PA"):  # pixels are numbers of colours there
        looks.append(image.getpalette(None))  # with its transparency, where it has one
    return node("image", content.digest(looks), pixels)
