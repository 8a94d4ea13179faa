"""How many terms of a loss of pytorch-metric-learning are other than zero."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# Regularizers tell nothing of whether there was something to learn from the items.
_REGULARIZED = "_reg_loss"


class ActiveTerms:
    """What the reducers of a loss were given, counted.

    Args:
        n_rows: Rows of the batch: that many are active where a loss gives one number for all, other than zero.
    """

    def __init__(self, n_rows: int) -> None:
        self.n_rows = n_rows
        self.counts: list[Tensor] = []
        self.totals: list[Tensor] = []
        #: Whether a reducer was called, and with lists of no terms alone: their mean is no number.
        self.is_empty = False

    def add(self, reducer: nn.Module, given: tuple[Any, ...]) -> None:
        """Count what a reducer is called with; a forward pre-hook."""
        for name, info in given[0].items():
            losses = info["losses"]
            if name.endswith(_REGULARIZED) or not isinstance(losses, Tensor):  # a loss of nothing is the number 0
                continue
            self.is_empty = losses.numel() == 0 and (self.is_empty or not (self.counts or self.totals))
            whole = info["reduction_type"] == "already_reduced"
            (self.totals if whole else self.counts).append(losses.detach().count_nonzero())

    def number(self, value: Tensor) -> Tensor:
        """How many terms are other than zero; a scalar.

        Args:
            value: The loss, for one whose reducers were not seen.
        """
        totals = self.totals
        if not self.counts and not totals:
            totals = [value.detach().count_nonzero()]
        whole = [torch.stack(totals).any() * self.n_rows] if totals else []
        return torch.stack([*self.counts, *whole]).sum()


@contextmanager
def counted(loss: nn.Module, n_rows: int) -> Iterator[ActiveTerms]:
    """Watch what the reducers of a loss, and of the losses inside of it, are given.

    Example:
        >>> from pytorch_metric_learning.losses import ContrastiveLoss
        >>> loss = ContrastiveLoss()
        >>> with counted(loss, 3) as active:
        ...     value = loss(torch.eye(3), torch.tensor([0, 0, 1]))
        >>> active.number(value)  # two positives at distance sqrt 2, and no negative within the margin of 1
        tensor(2)
    """
    from pytorch_metric_learning.losses import BaseMetricLossFunction

    active = ActiveTerms(n_rows)
    with ExitStack() as hooks:
        for part in loss.modules():
            # For the call only: hooks that stay would be copied and saved along with the loss.
            if isinstance(part, BaseMetricLossFunction):
                hooks.callback(part.reducer.register_forward_pre_hook(active.add).remove)
        yield active
