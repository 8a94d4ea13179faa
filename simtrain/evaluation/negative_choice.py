"""Which of a query's nearest items are taken as its hard negatives."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from simtrain.errors import ConfigError, nearest

SAMPLING = ("top", "random")


@dataclass(frozen=True)
class NegativeRules:
    """How hard negatives are chosen among the items that do not match.

    Attributes:
        k: How many for each query and positive.
        margin: A negative's score is at most the positive's minus this.
        relative_margin: A negative's score is at most this share below the positive's: 0.05 for at most 95 % of it.
        max_score: Highest score of a negative.
        min_score: Lowest score of a negative.
        range_min: How many of the nearest non-matching items are passed over.
        range_max: Up to which rank among the non-matching items negatives are taken.
        sampling: ``"top"`` for the nearest ones, ``"random"`` for any within the range.
        seed: Of the random choice.

    Raises:
        ConfigError: A setting is out of range.

    Example:
        >>> NegativeRules(k=3, relative_margin=0.05).range_max
        100
    """

    k: int = 5
    margin: float | int | None = None
    relative_margin: float | int | None = None
    max_score: float | int | None = None
    min_score: float | int | None = None
    range_min: int = 0
    range_max: int = 100
    sampling: str = "top"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("k", 1), ("range_min", 0), ("range_max", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"mine_hard_negatives: {name} is a whole number, {least} or more, got {value!r}")
        for name in ("margin", "relative_margin", "max_score", "min_score"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not math.isfinite(value)):
                raise ConfigError(f"mine_hard_negatives: {name} should be a finite number or None, got {value!r}")
        if self.range_min + self.k > self.range_max:
            raise ConfigError(
                f"mine_hard_negatives: range_max={self.range_max} leaves no room for k={self.k} negatives after "
                f"range_min={self.range_min}; raise range_max"
            )
        if self.relative_margin is not None and not 0 <= self.relative_margin < 1:
            raise ConfigError(
                f"mine_hard_negatives: relative_margin is a share, from 0 to below 1, got {self.relative_margin!r}"
            )
        if self.sampling not in SAMPLING:
            raise ConfigError(
                f"mine_hard_negatives: unknown sampling {self.sampling!r}; {nearest(self.sampling, SAMPLING)}"
            )

    def allowed(
        self,
        scores: Float[Tensor, "rows depth"],
        is_match: Bool[Tensor, "rows depth"],
        positive_scores: Float[Tensor, " rows"],
    ) -> Bool[Tensor, "rows depth"]:
        """Which candidates may be negatives.

        Args:
            scores: Scores of each row's candidates, best first, shape ``(rows, depth)``; minus infinity for none.
            is_match: Where a candidate matches, shape ``(rows, depth)``: it does not count in the ranks.
            positive_scores: Score of each row's positive, shape ``(rows,)``.

        Returns:
            Shape ``(rows, depth)``.

        Example:
            >>> rules = NegativeRules(k=1, margin=0.1, range_max=2)
            >>> is_match = torch.tensor([[True, False, False, False]])
            >>> rules.allowed(torch.tensor([[0.9, 0.85, 0.5, 0.4]]), is_match, torch.tensor([0.9])).tolist()
            [[False, False, True, False]]
        """
        other = ~is_match & scores.isfinite()
        rank = other.cumsum(dim=1) - 1
        allowed = other & (rank >= self.range_min) & (rank < self.range_max)
        if self.max_score is not None:
            allowed &= scores <= self.max_score
        if self.min_score is not None:
            allowed &= scores >= self.min_score
        if self.margin is not None:
            allowed &= scores <= (positive_scores - self.margin).unsqueeze(1)
        if self.relative_margin is not None:
            # Of its size, so that the bound is below a negative score, too.
            allowed &= scores <= (positive_scores - self.relative_margin * positive_scores.abs()).unsqueeze(1)
        return allowed


def choose(
    allowed: Bool[Tensor, "rows depth"], k: int, random: np.random.Generator | None = None
) -> tuple[Int64[Tensor, "rows k"], Bool[Tensor, "rows k"]]:
    """Choose up to ``k`` allowed columns a row, in their order.

    Args:
        allowed: Shape ``(rows, depth)``.
        k: At most how many.
        random: Draws any of the allowed columns; None takes the first ones.

    Returns:
        Columns, shape ``(rows, min(k, depth))``, and which of them were found.

    Example:
        >>> columns, found = choose(torch.tensor([[False, True, True, True], [False, False, False, True]]), k=2)
        >>> columns[found].tolist(), found.tolist()
        ([1, 2, 3], [[True, True], [True, False]])
    """
    depth = allowed.shape[1]
    taken = allowed & (allowed.cumsum(dim=1) <= k)
    if random is not None:
        # One number a candidate, in the order of the rows: the choice does not depend on how rows are cut into blocks.
        keys = torch.from_numpy(random.random(tuple(allowed.shape))).masked_fill(~allowed, 2.0)
        chosen = torch.zeros_like(allowed).scatter_(1, keys.argsort(dim=1)[:, :k], True)
        taken = allowed & chosen
    columns = torch.arange(depth).expand_as(allowed).masked_fill(~taken, depth)
    first = columns.sort(dim=1).values[:, :k]
    return first.clamp(max=depth - 1), first < depth
