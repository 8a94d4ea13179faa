"""The number types in which embeddings can be stored, in memory and in files."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

STORAGE_TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# numpy has no bfloat16: its bits are filed as unsigned integers.
FILE_TYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
}


def to_file_array(vectors: Shaped[Tensor, "n dim"], dtype: str) -> Shaped[np.ndarray, "n dim"]:
    """Turn vectors into the array whose bytes go to a file.

    Example:
        >>> to_file_array(torch.ones(1, 2), "float16").dtype
        dtype('float16')
    """
    stored = vectors.detach().to("cpu", STORAGE_TYPES[dtype]).contiguous()
    bits = stored.view(torch.int16) if dtype == "bfloat16" else stored
    array: Shaped[np.ndarray, "n dim"] = bits.numpy().view(FILE_TYPES[dtype])
    return array


def from_file_array(array: Shaped[np.ndarray, "n dim"], dtype: str) -> Shaped[Tensor, "n dim"]:
    """Turn an array that was read from a file back into vectors; shares memory with it.

    Example:
        >>> from_file_array(to_file_array(torch.ones(1, 2), "bfloat16"), "bfloat16")
        tensor([[1., 1.]], dtype=torch.bfloat16)
    """
    if dtype == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
