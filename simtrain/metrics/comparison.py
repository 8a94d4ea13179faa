"""Comparing every score of a row with the row's bound: which reach it, how many are above it."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

# A byte of a word counts to 255 before it carries over to the next.
MOST_WORDS = 255


def reaching(scores: Float[Tensor, "rows columns"], bound: Float[Tensor, "rows one"]) -> Int64[Tensor, " found"]:
    """Places, counted row by row, of the scores that are at least their row's bound; ascending.

    Example:
        >>> reaching(torch.tensor([[1.0, 3.0], [2.0, 0.0]]), torch.tensor([[2.0], [2.0]]))
        tensor([1, 2])
    """
    if scores.device.type != "cpu":
        return (scores >= bound).view(-1).nonzero()[:, 0]
    # numpy compares floats and finds the few true bytes several times as fast as torch does on a processor.
    return torch.from_numpy(np.flatnonzero(scores.numpy() >= bound.numpy()))


def count_above(scores: Float[Tensor, "rows columns"], bound: Float[Tensor, "rows one"]) -> Int64[Tensor, " rows"]:
    """How many scores of each row are above the row's bound.

    Example:
        >>> count_above(torch.tensor([[1.0, 3.0], [2.0, 0.0]]), torch.tensor([[2.0], [-1.0]]))
        tensor([1, 2])
    """
    if scores.device.type != "cpu":
        return (scores > bound).sum(dim=1)
    return _count(scores.numpy() > bound.numpy())


def count_equal(scores: Float[Tensor, "rows columns"], value: Float[Tensor, "rows one"]) -> Int64[Tensor, " rows"]:
    """How many scores of each row equal the row's value.

    Example:
        >>> count_equal(torch.tensor([[1.0, 3.0], [2.0, 0.0]]), torch.tensor([[3.0], [-1.0]]))
        tensor([1, 0])
    """
    if scores.device.type != "cpu":
        return torch.eq(scores, value).sum(dim=1)
    return _count(scores.numpy() == value.numpy())


def _count(flags: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Tensor:
    columns = flags.shape[1]
    if columns % 8 or not columns:
        return torch.from_numpy(flags.sum(axis=1))
    # Eight flags are added at a time, as the bytes of one word.
    words = torch.from_numpy(flags.view(np.int64))
    size = next(size for size in range(min(MOST_WORDS, words.shape[1]), 0, -1) if words.shape[1] % size == 0)
    sums = words.view(len(words), size, -1).sum(dim=1)
    return sums.view(torch.uint8).sum(dim=1)
