"""Collate functions that stack items, with errors that name the wrong one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import default_collate

from simtrain.encoders.item_error import ItemError


def stack_items(items: Sequence[Any]) -> Any:
    """Stack tensors, arrays or numbers of one shape; anything else goes through torch's default collate.

    Raises:
        ItemError: An item's shape differs from the first one's.

    Example:
        >>> stack_items([torch.zeros(2), torch.ones(2)]).shape
        torch.Size([2, 2])
    """
    if not all(isinstance(item, (Tensor, np.ndarray)) for item in items):
        return default_collate(list(items))
    # A copy in C order: torch takes no negative strides, and warns of arrays that are read-only.
    tensors = [item if isinstance(item, Tensor) else torch.from_numpy(np.array(item, order="C")) for item in items]
    for position, tensor in enumerate(tensors):
        if tensor.shape != tensors[0].shape:
            raise ItemError(
                position,
                f"has shape {tuple(tensor.shape)}, but item 0 has {tuple(tensors[0].shape)}; "
                f"give items of one shape, or a transform that brings them to one",
            )
    return torch.stack(tensors)


@dataclass(frozen=True)
class TransformAndStack:
    """Collate function that transforms each item and stacks the results.

    Args:
        transform: Called with each item. ``None`` takes the items as they are.
    """

    transform: Callable[[Any], Any] | None = None

    def __call__(self, items: Sequence[Any]) -> Any:
        """Collate ``items`` into what the module takes."""
        return stack_items(items if self.transform is None else [self.transform(item) for item in items])


@dataclass(frozen=True)
class StackVectors:
    """Collate function for items that are vectors of one size.

    Args:
        size: Number of elements that each vector must have.

    Example:
        >>> StackVectors(2)([[1, 2], np.array([3.0, 4.0])])
        tensor([[1., 2.],
                [3., 4.]])
    """

    size: int

    def __call__(self, items: Sequence[Any]) -> Float[Tensor, "batch dim"]:
        """Stack ``items``, shape ``(batch, size)``, float32.

        Raises:
            ItemError: An item is not a vector of numbers, or has another size.
        """
        vectors = [self._vector(position, item) for position, item in enumerate(items)]
        return torch.stack(vectors) if vectors else torch.empty(0, self.size)

    def _vector(self, position: int, item: Any) -> Tensor:
        try:
            vector = item.detach().float() if isinstance(item, Tensor) else torch.tensor(np.asarray(item, np.float32))
        except (TypeError, ValueError) as error:
            raise ItemError(position, f"must be a vector of {self.size} numbers, got {item!r:.80}") from error
        if vector.shape != (self.size,):
            raise ItemError(position, f"must be a vector of {self.size} numbers, got shape {tuple(vector.shape)}")
        return vector
