"""The few scores of a square that reach the bound of their row, or of their column."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

# Scores whose maximum is looked at first. More would be fewer maxima, and more scores to look at where one is hot.
FOLD = 8
# Maxima whose scores are looked at together.
FOLDS_AT_ONCE = 2**16

Array = NDArray[Any]


def fold_maxima(scores: Float[Tensor, "side side"], by_columns: bool = False) -> Array:
    """Largest of every :data:`FOLD` scores of each row, or of each column; shape ``(side, side / FOLD)``.

    Fold number ``f`` holds the scores ``f, f + side / FOLD, f + 2 side / FOLD, …``: so whole vectors are compared.
    """
    side = len(scores)
    if by_columns:
        return scores.view(FOLD, side // FOLD, side).amax(dim=0).T.numpy()
    return scores.view(side, FOLD, side // FOLD).amax(dim=1).numpy()


def hot_scores(
    scores: Float[Tensor, "side side"], maxima: Array, bound: Array, by_columns: bool = False
) -> tuple[Array, Array]:
    """Find the scores that reach their row's bound, or their column's.

    Args:
        scores: A square of scores, contiguous.
        maxima: Its :func:`fold_maxima`.
        bound: Of each row (column), shape ``(side, 1)``.
        by_columns: Bounds are those of columns.

    Returns:
        The row (column) of each, ascending, and its score; shape ``(found,)`` each.

    Example:
        >>> import torch
        >>> square = torch.arange(64.0).view(8, 8)
        >>> rows, found = hot_scores(square, fold_maxima(square), np.full((8, 1), 62.0))
        >>> rows.tolist(), found.tolist()
        ([7, 7], [62.0, 63.0])
    """
    side, n_folds = maxima.shape
    flags = maxima >= bound
    # Most squares of well-trained embeddings have none.
    found = np.flatnonzero(flags) if flags.any() else np.empty(0, dtype=np.int64)
    across, along = (1, side) if by_columns else (side, 1)
    members = np.arange(FOLD) * (n_folds * along)
    flat = scores.view(-1).numpy()
    parts = []
    for some in np.split(found, range(FOLDS_AT_ONCE, len(found), FOLDS_AT_ONCE)):
        rows = some // n_folds
        values = flat.take((rows * across + (some - rows * n_folds) * along)[:, None] + members)
        at = np.flatnonzero(values >= bound[rows])
        parts.append((rows[at // FOLD], values.reshape(-1)[at]))
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([values for _, values in parts])
