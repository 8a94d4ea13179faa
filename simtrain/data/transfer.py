"""Moving nested batches between devices."""

from __future__ import annotations

import copy
import dataclasses
from collections import UserString
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

# A packed sequence is a named tuple that keeps one of its tensors on the CPU: it knows how to move.
_MOVABLE: tuple[type[Any], ...] = (Tensor, PackedSequence)
# Sequences whose elements are never tensors; those of a UserString are UserStrings without end.
_FLAT = (str, UserString, bytes, bytearray, memoryview, range)


def move_to(data: Any, device: torch.device | str, non_blocking: bool = True) -> Any:
    """Move every tensor in a nesting of mappings, sequences and dataclasses; anything else is kept.

    Mappings become dicts. Lists, tuples, named tuples and other sequences keep their type, and so do dataclasses,
    frozen ones too: they are copied field by field, without calling their constructor. Other objects with a method
    ``to(device)`` are moved by it.

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
    if isinstance(data, _MOVABLE):
        return data.to(device, non_blocking=non_blocking)
    if type(data) is tuple:
        return tuple([move_to(value, device, non_blocking) for value in data])
    if type(data) is dict or isinstance(data, Mapping):
        return {key: move_to(value, device, non_blocking) for key, value in data.items()}
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        return _move_fields(data, device, non_blocking)
    if isinstance(data, Sequence) and not isinstance(data, _FLAT):
        return _like(data, [move_to(value, device, non_blocking) for value in data])
    # A type of the user's own that knows how to move itself.
    return data.to(device) if callable(getattr(data, "to", None)) else data


def _move_fields(data: Any, device: torch.device | str, non_blocking: bool) -> Any:
    # A field that the constructor does not set may have no value.
    names = [field.name for field in dataclasses.fields(data) if hasattr(data, field.name)]
    moved = copy.copy(data)
    for name in names:
        # The way around a frozen dataclass's own __setattr__: the copy is nobody else's yet.
        object.__setattr__(moved, name, move_to(getattr(data, name), device, non_blocking))
    return moved


def _like(data: Sequence[Any], values: list[Any]) -> Any:
    if isinstance(data, tuple) and hasattr(data, "_make"):
        return data._make(values)
    if type(data) is not list and all(new is old for new, old in zip(values, data, strict=True)):
        # Nothing moved: a sequence that cannot be built from its elements is no hindrance.
        return data
    return type(data)(values)  # type: ignore[call-arg]
