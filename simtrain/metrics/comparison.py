"""Comparing every score of a row with the row's bound: which reach it, how many are above it."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

# Rows that are compared, and added up, while they are in the processor's cache.
ROWS = 192


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
    # As numbers of the scores' dtype, which are compared and added a vector at a time; booleans are not.
    return torch.gt(scores, bound, out=torch.empty_like(scores)).sum(dim=1).long()


def count_equal(scores: Float[Tensor, "rows columns"], value: Float[Tensor, "rows one"]) -> Int64[Tensor, " rows"]:
    """How many scores of each row equal the row's value.

    Example:
        >>> count_equal(torch.tensor([[1.0, 3.0], [2.0, 0.0]]), torch.tensor([[3.0], [-1.0]]))
        tensor([1, 0])
    """
    return torch.eq(scores, value, out=torch.empty_like(scores)).sum(dim=1).long()


def counts(
    scores: Float[Tensor, "rows columns"],
    value: Float[Tensor, "values one"],
    axis: int,
    scratch: Float[Tensor, "some_rows some_columns"],
) -> tuple[Int64[Tensor, " values"], Int64[Tensor, " values"]]:
    """How many scores of each row (``axis=0``: of each column) are above its value, and how many equal it.

    Args:
        scores: Shape ``(rows, columns)``.
        value: Of each row, or of each column.
        axis: 1 for rows, 0 for columns.
        scratch: Memory that is written to, as many numbers as :data:`ROWS` rows of scores.

    Example:
        >>> scores = torch.tensor([[1.0, 3.0], [2.0, 0.0]])
        >>> counts(scores, torch.tensor([[1.0], [0.0]]), 0, torch.empty(2, 2))
        (tensor([1, 1]), tensor([1, 1]))
    """
    found = torch.zeros(2, scores.shape[1 - axis], dtype=torch.int64)
    for start in range(0, len(scores), ROWS):
        some = scores[start : start + ROWS]
        flags = scratch.view(-1)[: some.numel()].view(some.shape)
        bound, at = (value[start : start + ROWS], slice(start, start + ROWS)) if axis else (value.T, slice(None))
        for count, compare in zip(found, (torch.gt, torch.eq), strict=True):
            count[at] += compare(some, bound, out=flags).sum(dim=axis).long()
    return found[0], found[1]
