"""Telling one item from many, for everything that users may give to ``encode``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, KeysView, Sequence, ValuesView
from typing import Any

import numpy as np
from torch import Tensor


def listed_items(inputs: Any, encoders: Iterable[Any] = ()) -> tuple[list[Any], bool]:
    """List the items in ``inputs``.

    Many items: a list, tuple, range or other sequence, a generator or iterator, the keys or values of a
    dict, a pandas column, an array of objects or texts, and a numeric array or tensor of two or more
    dimensions (its first runs over the items), but for a single image. Anything else is one item: a text, a
    dict, an image object, a numeric array of one dimension.

    Args:
        inputs: What the user gave.
        encoders: Those that the items are for; one that takes images knows a single one by its shape.

    Returns:
        The items, and whether ``inputs`` was a single item.

    Example:
        >>> listed_items("one text"), listed_items(("a", "b"))
        ((['one text'], True), (['a', 'b'], False))
    """
    if isinstance(inputs, (str, bytes, bytearray)):
        return [inputs], True
    if isinstance(inputs, np.ndarray):
        many = inputs.ndim > (0 if inputs.dtype.kind in "OUS" else 1)
    elif isinstance(inputs, Tensor):
        many = inputs.ndim > 1
    else:
        many = isinstance(inputs, (Sequence, Iterator, KeysView, ValuesView)) or _is_column(inputs)
    if isinstance(inputs, np.ndarray) and inputs.dtype.kind in "US" and many:
        return inputs.tolist(), False
    if many and isinstance(inputs, (np.ndarray, Tensor)):
        # Encoders of quaterion-models say nothing.
        many = not any(encoder.is_one_item(inputs) for encoder in encoders if hasattr(encoder, "is_one_item"))
    return (list(inputs), False) if many else ([inputs], True)


def _is_column(inputs: Any) -> bool:
    return all(hasattr(inputs, name) for name in ("to_list", "__len__", "__iter__"))
