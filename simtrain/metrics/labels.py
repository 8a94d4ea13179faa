"""Labels of any hashable kind as int64 numbers, exactly: equal labels get equal numbers, others never do."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor, int64, is_tensor, tensor

from simtrain.errors import DataError

Labels = Tensor | NDArray[Any] | Sequence[Any]


def label_numbers(queries: Labels, gallery: Labels) -> tuple[Int64[Tensor, " queries"], Int64[Tensor, " gallery"]]:
    """Number the labels of queries and gallery alike.

    Integers keep their values and are never turned into floating point, where 16,777,216 and 16,777,217 would
    become one class. Floating-point labels are refused for the same reason.

    Args:
        queries: Integer tensor, numpy array, or a sequence of hashables (strings, tuples, ...), one a query.
        gallery: The same for the gallery. Labels of different kinds (``1`` and ``"1"``) are different.

    Returns:
        Two int64 tensors on the CPU or on the devices that the labels were on.

    Raises:
        DataError: Labels are floating point, not one-dimensional or not hashable.

    Example:
        >>> label_numbers(["cat", "dog"], ["dog", "bird"])
        (tensor([0, 1]), tensor([1, 2]))
    """
    integers = [_integers(_checked(labels)) for labels in (queries, gallery)]
    if integers[0] is not None and integers[1] is not None:
        return integers[0], integers[1]
    numbers: dict[Hashable, int] = {}
    first, second = (_numbered(labels, numbers) for labels in (queries, gallery))
    return first, second


def _checked(labels: Labels) -> Labels:
    if (is_tensor(labels) and (labels.is_floating_point() or labels.is_complex())) or (
        isinstance(labels, np.ndarray) and labels.dtype.kind in "fc"
    ):
        raise DataError(f"labels must be integers, strings or other hashables, got {labels.dtype}; use int64")
    if isinstance(labels, Tensor | np.ndarray) and labels.ndim != 1:
        raise DataError(
            f"labels must be one-dimensional, one label an item, got shape {tuple(labels.shape)}; "
            "give several labels an item as relevant="
        )
    return labels


def _integers(labels: Labels) -> Tensor | None:
    if is_tensor(labels):
        return labels.to(int64)
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "iub" and labels.dtype != np.uint64:
        return tensor(labels.astype(np.int64))
    return None


def _numbered(labels: Labels, numbers: dict[Hashable, int]) -> Tensor:
    values: list[Any] = labels.tolist() if isinstance(labels, Tensor | np.ndarray) else list(labels)
    # Tensors hash by identity: equal ones would become different classes.
    plain = [value.item() if isinstance(value, Tensor | np.generic) else value for value in values]
    try:
        result = tensor([numbers.setdefault(value, len(numbers)) for value in plain], dtype=int64)
    except TypeError as error:
        raise DataError(f"labels must be integers, strings or other hashables: {error}") from error
    wrong = next((value for value in plain if isinstance(value, float)), None)
    if wrong is not None:
        raise DataError(f"labels must be integers, strings or other hashables, got the float {wrong!r}")
    return result
