"""Checks of the tensors that losses are called with.

Only shapes and dtypes are looked at: reading a value would make a GPU wait in every step. Non-finite losses are
caught by whoever drives the training.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from simtrain.errors import DataError


def check_embeddings(embeddings: Any, name: str = "embeddings") -> None:
    """Refuse anything but a floating point matrix.

    Raises:
        DataError: It is no tensor, not of shape ``(rows, dim)`` or not floating point.
    """
    if not isinstance(embeddings, Tensor) or embeddings.ndim != 2 or not embeddings.is_floating_point():
        raise DataError(f"{name} must be a floating point tensor of shape (rows, dim), got {_words(embeddings)}")


def check_labels(labels: Any, n_rows: int, name: str, of: str) -> None:
    """Refuse anything but one integer for each of ``n_rows`` rows.

    Args:
        labels: What was given.
        n_rows: How many integers are needed.
        name: Argument name, for the message.
        of: What the rows are, for the message.

    Raises:
        DataError: It is no tensor, has another shape, or its dtype is not an integer one.
    """
    if not _is_integer(labels) or labels.shape != (n_rows,):
        raise DataError(
            f"{name} must be an integer tensor with one entry for each of {n_rows} {of}, got {_words(labels)}"
        )


def check_group_batch(embeddings: Any, groups: Any) -> None:
    """Refuse what a group loss cannot be called with.

    Args:
        embeddings: To be floating point, shape ``(batch, dim)``.
        groups: To be integers, shape ``(batch,)``.

    Raises:
        DataError: A shape or a dtype is wrong; the message says what was given and what is accepted.

    Example:
        >>> check_group_batch(torch.zeros(2, 3), torch.tensor([0, 1]))
        >>> check_group_batch(torch.zeros(2), torch.tensor([0, 1]))
        Traceback (most recent call last):
        ...
        simtrain.errors.DataError: embeddings must be ... of shape (rows, dim), got float32 of shape (2,)
    """
    check_embeddings(embeddings)
    check_labels(groups, len(embeddings), "groups", "embeddings")


def check_memory(embeddings: Tensor, memory_embeddings: Any, memory_groups: Any, own: Any) -> None:
    """Refuse a memory that does not fit a batch of embeddings.

    Args:
        embeddings: The batch, shape ``(batch, dim)``, already checked.
        memory_embeddings: To be floating point, shape ``(memory, dim)``.
        memory_groups: To be integers, shape ``(memory,)``.
        own: ``None``, or to be bool, shape ``(batch, memory)``.

    Raises:
        DataError: A shape or a dtype is wrong.
    """
    check_embeddings(memory_embeddings, "memory_embeddings")
    if memory_embeddings.shape[1] != embeddings.shape[1]:
        raise DataError(
            f"memory_embeddings have {memory_embeddings.shape[1]} dimensions and embeddings {embeddings.shape[1]}; "
            f"build the memory with the embedding size of the model"
        )
    check_labels(memory_groups, len(memory_embeddings), "memory_groups", "memory_embeddings")
    shape = (len(embeddings), len(memory_embeddings))
    if own is not None and (not isinstance(own, Tensor) or own.dtype != torch.bool or own.shape != shape):
        raise DataError(f"own must be None or a bool tensor of shape (batch, memory) = {shape}, got {_words(own)}")


def check_pair_batch(embeddings: Any, pairs: Any, labels: Any, subgroups: Any) -> None:
    """Refuse what a pairwise loss cannot be called with.

    Args:
        embeddings: To be floating point, shape ``(rows, dim)``.
        pairs: To be int64 row numbers, shape ``(n_pairs, 2)``.
        labels: To be floating point scores, shape ``(n_pairs,)``.
        subgroups: To be integers, shape ``(rows,)``.

    Raises:
        DataError: A shape or a dtype is wrong, or (seen on the CPU only) a pair names a row that is not there.
    """
    check_embeddings(embeddings)
    if not isinstance(pairs, Tensor) or pairs.dtype != torch.long or pairs.ndim != 2 or pairs.shape[1] != 2:
        raise DataError(f"pairs must be an int64 tensor of shape (n_pairs, 2), got {_words(pairs)}")
    if not isinstance(labels, Tensor) or not labels.is_floating_point() or labels.shape != (len(pairs),):
        raise DataError(
            f"labels must be a floating point tensor with one score for each of {len(pairs)} pairs, "
            f"got {_words(labels)}"
        )
    check_labels(subgroups, len(embeddings), "subgroups", "embeddings")
    check_rows(pairs, len(embeddings), "pairs")


def check_rows(rows: Tensor, n_rows: int, name: str, of: str = "embeddings") -> None:
    """Refuse row numbers outside ``0 .. n_rows - 1``, where looking costs nothing.

    A negative number would silently wrap around. On a GPU, the look would stop the queue of kernels, and indexing
    has its own assertion there.

    Raises:
        DataError: A row number is out of range.
    """
    if rows.device.type != "cpu" or rows.numel() == 0:
        return
    low, high = int(rows.min()), int(rows.max())
    if low < 0 or high >= n_rows:
        raise DataError(f"{name} must name rows 0 to {n_rows - 1} of {of}, got {low if low < 0 else high}")


def _is_integer(tensor: Any) -> bool:
    if not isinstance(tensor, Tensor) or tensor.dtype == torch.bool:
        return False
    return not tensor.is_floating_point() and not tensor.is_complex()


def _words(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"
