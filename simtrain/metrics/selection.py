"""The k best of each row, exactly and in a fixed order: by score, ties by the lower index."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from simtrain.metrics.comparison import reaching

TIED_ROWS = 32
# Bytes of candidates that are looked at together.
CANDIDATE_BYTES = 8 * 2**20


def select_top(
    scores: Float[Tensor, "rows columns"], k: int, above: Float[Tensor, "rows one"] | None = None
) -> tuple[Float[Tensor, "rows k"], Int64[Tensor, "rows k"]]:
    """Best ``k`` scores of each row and their columns; ``0 < k <= columns``.

    Entries of minus infinity stand for excluded columns; their order among themselves is not fixed.

    Args:
        scores: Free of NaN, shape ``(rows, columns)``.
        k: How many.
        above: For each row a score below which nothing is wanted: places that only such scores would fill may hold
            minus infinity instead.

    Returns:
        Scores, descending, and columns, shape ``(rows, k)`` each. Equal scores stand by ascending column.

    Example:
        >>> select_top(torch.tensor([[1.0, 3.0, 1.0, 3.0]]), 3)
        (tensor([[3., 3., 1.]]), tensor([[1, 3, 0]]))
    """
    n = scores.shape[1]
    if k == n:
        return scores.sort(dim=1, descending=True, stable=True)
    size = 8 if n < 1000 * k else 16
    if n < 2 * size * k or n % size or not scores.is_contiguous():
        return _plain_top(scores, k)
    rows = max(1, CANDIDATE_BYTES // (32 * size * k))
    if rows >= len(scores):
        return _folded_top(scores, k, size, above)
    bounds = [None] * -(-len(scores) // rows) if above is None else list(torch.split(above, rows))
    found = [_folded_top(some, k, size, bound) for some, bound in zip(torch.split(scores, rows), bounds, strict=True)]
    return torch.cat([values for values, _ in found]), torch.cat([columns for _, columns in found])


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


def _plain_top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    # One more than asked shows whether the last place is tied with a column that was left out.
    more, columns = scores.topk(k + 1, dim=1)
    values, columns = _by_column(more[:, :k], columns[:, :k])
    tied = ((more[:, k - 1] == more[:, k]) & (more[:, k] > -math.inf)).nonzero()[:, 0]
    for rows in torch.split(tied, TIED_ROWS):
        values[rows], columns[rows] = _tied_top(scores[rows], values[rows, -1:], k)
    return values, columns


def _folded_top(scores: Tensor, k: int, size: int, above: Tensor | None) -> tuple[Tensor, Tensor]:
    """Top k among the few scores that reach a bound: columns are folded, and the k-th best fold's maximum is one.

    At least k scores reach it, so all of the best k do, ties included.
    """
    maxima = scores.view(len(scores), size, -1).amax(dim=1)
    bound = _kth_maximum(maxima, k)
    bound = bound if above is None else torch.maximum(bound, above)
    n_folds, n = maxima.shape[1], scores.shape[1]
    found = reaching(maxima, bound)
    rows = found.div(n_folds, rounding_mode="floor")
    crowded = torch.bincount(rows, minlength=len(scores)) > 2 * k + 64
    rows, folds = _without(crowded, rows, found - rows * n_folds)
    columns = folds[:, None] + torch.arange(0, n, n_folds, device=scores.device)
    values = scores.view(-1).index_select(0, ((rows * n)[:, None] + columns).view(-1))
    at = reaching(values.view(-1, size), bound[rows])
    rows, columns, values = rows[at.div(size, rounding_mode="floor")], columns.view(-1)[at], values[at]
    full = torch.bincount(rows, minlength=len(scores)) > 2 * k + 64
    rows, columns, values = _without(full, rows, columns, values)
    return _sorted_top(scores, k, (rows, columns, values), crowded | full)


def _kth_maximum(maxima: Tensor, k: int) -> Tensor:
    # The maxima are folded once more: the bound is a little lower then, and found in a fraction of the time.
    folds = max(5 * k, 64)
    size = maxima.shape[1] // folds
    if size > 1:
        maxima = maxima[:, : size * folds].view(len(maxima), size, folds).amax(dim=1)
    return maxima.topk(k, dim=1, sorted=False).values.amin(dim=1, keepdim=True)


def _without(left_out: Tensor, rows: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    if not bool(left_out.any()):
        return rows, *others
    keep = ~left_out[rows]
    return rows[keep], *(other[keep] for other in others)


def _sorted_top(scores: Tensor, k: int, candidates: tuple[Tensor, ...], others: Tensor) -> tuple[Tensor, Tensor]:
    """Candidates (row, column, value) as sorted rows; ``others`` are rows that are searched the plain way."""
    rows, columns, values = candidates
    count = torch.bincount(rows, minlength=len(scores))
    width = max(k, int(count.max()))
    place = torch.arange(len(rows), device=rows.device) - (count.cumsum(0) - count)[rows] + rows * width
    best = scores.new_full((len(scores), width), -math.inf)
    at = rows.new_zeros(len(scores), width)
    best.view(-1)[place], at.view(-1)[place] = values, columns
    missing = others.nonzero()[:, 0]
    for some in torch.split(missing, TIED_ROWS):
        best[some, :k], at[some, :k] = _plain_top(scores[some], k)
    best, order = best.sort(dim=1, descending=True)
    values, columns = _by_column(best, at.gather(1, order))
    return values[:, :k], columns[:, :k]


def _by_column(values: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    ties = (values[:, 1:] == values[:, :-1]) & (values[:, 1:] > -math.inf)
    rows = ties.any(dim=1).nonzero()[:, 0]
    if len(rows):
        values, columns = values.clone(), columns.clone()
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
