"""Cosine logits with a margin on each row's own class: the common form of ArcFace and CosFace."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from simtrain.errors import ConfigError


def add_angle(cosines: Float[Tensor, " n"], margin: Float[Tensor, " n"] | Float[Tensor, ""]) -> Float[Tensor, " n"]:
    """``cos(theta + margin)`` of ``cos(theta)``; ``cos(theta) - margin sin(margin)`` where ``theta > pi - margin``.

    Beyond ``pi - margin`` the cosine of the sum would rise again; the straight line goes on falling. At ``theta = 0``
    and ``pi`` the angle has no gradient: there it counts as zero, so that gradients are finite everywhere.

    Args:
        cosines: Shape ``(n,)``; rounding beyond 1 does no harm.
        margin: In radians, from 0 to pi; one for all or one each.

    Returns:
        Shape ``(n,)``.

    Example:
        >>> add_angle(torch.tensor([1.0, -1.0]), torch.tensor(0.5))  # cos 0.5, -1 - 0.5 sin 0.5
        tensor([ 0.8776, -1.2397])
    """
    squared_sines = (1 - cosines) * (1 + cosines)
    at_edge = squared_sines.detach() <= 0
    # The square root of 1 in place of 0 keeps its infinite slope out of the backward pass.
    sines = squared_sines.masked_fill(at_edge, 1).sqrt().masked_fill(at_edge, 0)
    added = cosines * margin.cos() - sines * margin.sin()
    return torch.where(cosines > -margin.cos(), added, cosines - margin * margin.sin())


def put_at_class(
    logits: Float[Tensor, "batch groups"], groups: Integer[Tensor, " batch"], values: Float[Tensor, " batch"]
) -> Float[Tensor, "batch groups"]:
    """Logits with each row's own class replaced.

    Example:
        >>> put_at_class(torch.zeros(1, 3), torch.tensor([1]), torch.tensor([5.0]))
        tensor([[0., 5., 0.]])
    """
    return logits.scatter(1, groups.long().unsqueeze(1), values.unsqueeze(1))


def dynamic_margins(
    group_counts: Sequence[int], low: float = 0.05, high: float = 0.5, power: float = 0.25
) -> list[float]:
    """A margin for each group: the fewer items, the larger, ``a n^-power + b`` between ``low`` and ``high``.

    Args:
        group_counts: Number of items of each group.
        low: Margin of the largest group.
        high: Margin of the smallest group, and of all where they are equally large.
        power: How the margin falls with the number of items.

    Returns:
        One margin a group.

    Raises:
        ConfigError: There is no group, or a group has no item.

    Reference:
        Ha et al., "Google Landmark Recognition 2020 Competition Third Place Solution",
        https://arxiv.org/abs/2010.05350

    Example:
        >>> [round(margin, 3) for margin in dynamic_margins([1, 16, 10_000])]
        [0.5, 0.25, 0.05]
    """
    counts = list(group_counts)
    if not counts or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in counts):
        raise ConfigError(f"group_counts should give each group's number of items, one or more, got {counts!r:.80}")
    raw = [math.pow(n, -power) for n in counts]
    least, spread = min(raw), max(raw) - min(raw)
    return [high if spread == 0 else low + (high - low) * (value - least) / spread for value in raw]
