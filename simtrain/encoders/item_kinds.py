"""Telling texts from images by their type."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from torch import Tensor

TEXT, IMAGE = "text", "image"


def kind_of(item: Any) -> str:
    """``"text"`` for a str; ``"image"`` for a PIL image, array, tensor, path object or bytes.

    A path to an image given as a str is a text: wrap it in ``pathlib.Path``.

    Returns:
        ``"text"``, ``"image"``, or for anything else the name of its type, which no encoder has.

    Example:
        >>> from pathlib import Path
        >>> kind_of("a red shoe"), kind_of(Path("shoe.png")), kind_of(3)
        ('text', 'image', 'int')
    """
    if isinstance(item, str):
        return TEXT
    # A PIL image is known by what it can do: Pillow is not imported for it.
    is_picture = hasattr(item, "convert") and hasattr(item, "getbands")
    is_image = is_picture or isinstance(item, (np.ndarray, Tensor, os.PathLike, bytes, bytearray))
    return IMAGE if is_image else type(item).__name__
