"""Moving nested batches between devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def move_to(data: Any, device: torch.device | str, non_blocking: bool = True) -> Any:
    """Move every tensor in a nesting of mappings, named tuples, tuples and lists; anything else is kept.

    Args:
        data: The nested batch.
        device: Where to.
        non_blocking: Let copies from pinned memory overlap with computing.

    Returns:
        The same nesting; tensors that are there already are not copied.

    Example:
        >>> move_to({"x": torch.ones(2), "name": "a"}, "cpu")["name"]
        'a'
    """
    if isinstance(data, Tensor):
        return data.to(device, non_blocking=non_blocking)
    if isinstance(data, Mapping):
        return {key: move_to(value, device, non_blocking) for key, value in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(move_to(value, device, non_blocking) for value in data))
    if isinstance(data, (list, tuple)):
        return type(data)(move_to(value, device, non_blocking) for value in data)
    return data
