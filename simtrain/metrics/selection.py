"""The k best of each row, exactly and in a fixed order: by score, ties by the lower index."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

TIED_ROWS = 32


def select_top(
    scores: Float[Tensor, "rows columns"], k: int
) -> tuple[Float[Tensor, "rows k"], Int64[Tensor, "rows k"]]:
    """Best ``k`` scores of each row and their columns; ``0 < k <= columns``.

    Entries of minus infinity stand for excluded columns; their order among themselves is not fixed.

    Args:
        scores: Free of NaN, shape ``(rows, columns)``.
        k: How many.

    Returns:
        Scores, descending, and columns, shape ``(rows, k)`` each. Equal scores stand by ascending column.

    Example:
        >>> select_top(torch.tensor([[1.0, 3.0, 1.0, 3.0]]), 3)
        (tensor([[3., 3., 1.]]), tensor([[1, 3, 0]]))
    """
    if k == scores.shape[1]:
        return scores.sort(dim=1, descending=True, stable=True)
    # One more than asked shows whether the last place is tied with a column that was left out.
    more, columns = _candidates(scores, k + 1)
    values, columns = _by_column(more[:, :k], columns[:, :k])
    tied = ((more[:, k - 1] == more[:, k]) & (more[:, k] > -math.inf)).nonzero()[:, 0]
    for rows in torch.split(tied, TIED_ROWS):
        values[rows], columns[rows] = _tied_top(scores[rows], values[rows, -1:], k)
    return values, columns


def merge_top(
    values: Float[Tensor, "rows old"],
    columns: Int64[Tensor, "rows old"],
    new_values: Float[Tensor, "rows new"],
    new_columns: Int64[Tensor, "rows new"],
    k: int,
) -> tuple[Float[Tensor, "rows best"], Int64[Tensor, "rows best"]]:
    """Best ``k`` of two selections, the second from higher columns than the first."""
    both = torch.cat([values, new_values], dim=1)
    best, place = both.sort(dim=1, descending=True, stable=True)
    return best[:, :k].contiguous(), torch.cat([columns, new_columns], dim=1).gather(1, place[:, :k])


def _candidates(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Top k in two levels: the best k lie in the k folds of columns with the best maxima (or tie with one there)."""
    n = scores.shape[1]
    folds = math.isqrt(n * k)
    size = n // folds
    if size < 4:
        return scores.topk(k, dim=1)
    folds = n // size
    maxima = torch.unflatten(scores[:, : folds * size], 1, (size, folds)).amax(dim=1)
    chosen = maxima.topk(k, dim=1, sorted=False).indices
    steps = torch.arange(0, folds * size, folds, device=scores.device)
    inside = (chosen[:, None, :] + steps[:, None]).flatten(1)
    tail = torch.arange(folds * size, n, device=scores.device).expand(len(scores), -1)
    columns = torch.cat([inside, tail], dim=1)
    values, place = scores.gather(1, columns).topk(k, dim=1)
    return values, columns.gather(1, place)


def _by_column(values: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    rows = (values[:, 1:] == values[:, :-1]).any(dim=1).nonzero()[:, 0]
    values, columns = values.clone(), columns.clone()
    if len(rows):
        ascending, place = columns[rows].sort(dim=1)
        best, order = values[rows].gather(1, place).sort(dim=1, descending=True, stable=True)
        values[rows], columns[rows] = best, ascending.gather(1, order)
    return values, columns


def _tied_top(scores: Tensor, last: Tensor, k: int) -> tuple[Tensor, Tensor]:
    better, equal = scores > last, scores == last
    room = k - better.sum(dim=1, keepdim=True)
    keep = better | (equal & (equal.cumsum(dim=1, dtype=torch.int32) <= room))
    columns = keep.nonzero()[:, 1].reshape(len(scores), k)
    values, place = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, place)
