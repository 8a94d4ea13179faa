"""A square of scores, and what is asked of it more than once."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from simtrain.metrics.hot_scores import fold_maxima


class Square:
    """The scores of two tiles, looked at by the queries in its rows and by those in its columns.

    Args:
        scores: Contiguous. Rows and columns past the queries hold minus infinity.
        scratch: Memory that may be written to, :data:`~simtrain.metrics.comparison.ROWS` rows.

    Example:
        >>> import torch
        >>> Square(torch.arange(64.0).view(8, 8), torch.empty(8, 8)).peak
        63.0
    """

    def __init__(self, scores: Float[Tensor, "side side"], scratch: Float[Tensor, "rows side"]) -> None:
        self.scores, self.scratch = scores, scratch

    @cached_property
    def peak(self) -> float:
        """The highest score."""
        return float(self._row_maxima.max())

    def maxima(self, by_columns: bool = False) -> NDArray[Any]:
        """The scores' :func:`~simtrain.metrics.hot_scores.fold_maxima`."""
        return fold_maxima(self.scores, by_columns=True) if by_columns else self._row_maxima

    @cached_property
    def _row_maxima(self) -> NDArray[Any]:
        return fold_maxima(self.scores)
