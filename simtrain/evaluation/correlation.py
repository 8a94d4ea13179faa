"""Correlation of similarities and scores."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simtrain.errors import DataError
from simtrain.metrics.vectors import unit_rows

Array = NDArray[np.float64]
CORRELATIONS = ("spearman", "pearson")


def pair_cosines(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of each row of ``first`` with the same row of ``second``, float64, shape ``(rows,)``.

    Example:
        >>> pair_cosines(torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
        tensor([1.], dtype=torch.float64)
    """
    left, right = (unit_rows(rows.detach().cpu().double()) for rows in (first, second))
    cosines: Tensor = torch.linalg.vecdot(left, right)
    return cosines


def correlation(values: Array, scores: Array, name: str = "spearman") -> float:
    """Correlation of two series; 0.0 where one of them is constant.

    Args:
        values: Shape ``(pairs,)``.
        scores: Shape ``(pairs,)``.
        name: ``"spearman"`` (of ranks, ties share the mean of theirs) or ``"pearson"``.

    Raises:
        DataError: There are fewer than two pairs, or a number is NaN or infinite.

    Example:
        >>> correlation(np.array([1.0, 2.0, 9.0]), np.array([0.1, 0.2, 0.3]))
        1.0
    """
    if len(values) < 2:
        raise DataError(f"a correlation needs two pairs at least, got {len(values)}")
    for series, kind in ((values, "similarity"), (scores, "score")):
        if not np.isfinite(series).all():
            raise DataError(f"the {kind} of pair {int(np.argmin(np.isfinite(series)))} is NaN or infinite")
    if name == "spearman":
        values, scores = average_ranks(values), average_ranks(scores)
    left, right = values - values.mean(), scores - scores.mean()
    scale = float(np.sqrt((left**2).sum() * (right**2).sum()))
    # Rounded to what the sums can tell: a perfect correlation is 1.
    return 0.0 if scale == 0.0 else round(float((left * right).sum()) / scale, 14)


def average_ranks(values: Array) -> Array:
    """Ranks from 1; equal values share the mean of their ranks.

    Example:
        >>> average_ranks(np.array([3.0, 1.0, 3.0])).tolist()
        [2.5, 1.0, 2.5]
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Array = (last - (counts - 1) / 2.0)[inverse.reshape(-1)]
    return ranks
