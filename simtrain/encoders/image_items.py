"""From what people call an image to one of Pillow's: upright, in RGB, on white."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
from torch import Tensor

from simtrain.errors import DataError, import_extra

_ACCEPTED = (
    "a PIL image, a file's path, its bytes, a uint8 array (height, width, channels), or a uint8 or float tensor "
    "(channels, height, width)"
)


def read_image(item: Any) -> Any:
    """Bring an image into the form of a ``PIL.Image.Image`` in RGB.

    Transparent parts become white, and a photo is turned upright where its EXIF data say how.

    Args:
        item: A PIL image; the path of a file; bytes of a file; a uint8 array, shape ``(height, width)`` or ``(height,
            width, channels)``; a tensor ``(channels, height, width)``, uint8 or float from 0 to 1. Channels are 1
            (gray), 3 (RGB) or 4 (RGBA).

    Raises:
        DataError: It is none of these, or cannot be read; the message words the end of "item 3 ...".
        MissingExtraError: Pillow is not installed.

    Example:
        >>> read_image(np.zeros((2, 3), np.uint8)).mode
        'RGB'
    """
    pillow = import_extra("PIL.Image", "vision")
    if isinstance(item, pillow.Image):
        return _read(item, "is an image that cannot be read")
    if isinstance(item, (str, os.PathLike)):
        return _opened(os.fspath(item), f"is the file {os.fspath(item)!r}, which cannot be read as an image")
    if isinstance(item, (bytes, bytearray)):
        return _opened(io.BytesIO(item), f"is {len(item)} bytes that cannot be read as an image")
    if isinstance(item, Tensor):
        return _upright_rgb(pillow.fromarray(_tensor_pixels(item)))
    if isinstance(item, np.ndarray):
        return _upright_rgb(pillow.fromarray(_array_pixels(item)))
    raise DataError(f"must be {_ACCEPTED}, got {type(item).__name__} {item!r:.60}")


def looks_like_image(array: Any) -> bool:
    """Whether an array or a tensor is one image by its shape, not several, and not none at all.

    Example:
        >>> looks_like_image(np.zeros((20, 30, 3), np.uint8)), looks_like_image(np.zeros((5, 20, 30, 3), np.uint8))
        (True, False)
    """
    if isinstance(array, Tensor):  # channels first; without channels it is no image
        return array.ndim == 3 and len(array) > 0
    if not isinstance(array, np.ndarray) or not len(array):
        return False
    return array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))


def _opened(source: Any, failure: str) -> Any:
    pillow = import_extra("PIL.Image", "vision")
    try:
        with pillow.open(source) as image:
            return _upright_rgb(image)
    except Exception as error:  # Pillow's readers raise OSError, SyntaxError, ValueError, struct.error and more
        raise DataError(f"{failure} ({type(error).__name__}: {error})") from error


def _read(image: Any, failure: str) -> Any:
    try:
        return _upright_rgb(image)
    except Exception as error:  # it may be a file that is read only now
        raise DataError(f"{failure} ({type(error).__name__}: {error})") from error


def _upright_rgb(image: Any) -> Any:
    pillow = import_extra("PIL.Image", "vision")
    image = import_extra("PIL.ImageOps", "vision").exif_transpose(image)
    if image.mode.startswith("I;16"):
        # Pillow would cut the values at 255 instead of scaling them.
        image = pillow.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = pillow.alpha_composite(pillow.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _array_pixels(array: Any) -> Any:
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if array.dtype != np.uint8 or not is_image or array.size == 0:
        raise DataError(f"must be {_ACCEPTED}, got an array of {array.dtype} of shape {array.shape}")
    return np.ascontiguousarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def _tensor_pixels(tensor: Tensor) -> Any:
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3, 4) or tensor.numel() == 0:
        raise DataError(f"must be {_ACCEPTED}, got a tensor of {tensor.dtype} of shape {tuple(tensor.shape)}")
    pixels = tensor.detach().cpu()
    if pixels.is_floating_point():
        low, high = pixels.min().item(), pixels.max().item()
        if not 0 <= low <= high <= 1:
            raise DataError(f"must have values from 0 to 1 as a float tensor, got {low:.4g} to {high:.4g}")
        pixels = (pixels.float() * 255).round().byte()
    return _array_pixels(pixels.permute(1, 2, 0).numpy())
