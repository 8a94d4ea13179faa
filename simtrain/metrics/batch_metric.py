"""What all metrics of batches share."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchmetrics import Metric


class BatchMetric(Metric):
    """A torchmetrics ``Metric`` of the items of a batch and their targets; the base of this room's classes.

    ``update`` takes ``(embeddings, groups=None, pairs=None, labels=None, subgroups=None)``, a batch and its targets
    as the loss takes them. States have a fixed size and are summed over processes.
    """

    is_differentiable = False
    full_state_update = False

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draw one value, or several over steps.

        Args:
            val: What ``compute`` or ``forward`` gave, or a list of such values. Default: the value now.
            ax: Axes of matplotlib to draw into. Default: new ones.

        Returns:
            Figure and axes.

        Raises:
            ModuleNotFoundError: matplotlib is not installed; it comes with ``simtrain[report]``.
        """
        return self._plot(val, ax)

    def update(
        self,
        embeddings: Tensor,
        groups: Tensor | None = None,
        pairs: Tensor | None = None,
        labels: Tensor | None = None,
        subgroups: Tensor | None = None,
    ) -> None:
        """Add a batch, with its targets as the loss takes them.

        Args:
            embeddings: Shape ``(rows, dim)``, any floating point dtype.
            groups: Of group batches: integers, shape ``(rows,)``.
            pairs: Of pair batches: rows ``(query, document)`` of ``embeddings``, shape ``(pairs, 2)``.
            labels: Of pair batches: shape ``(pairs,)``; only pairs with a label above 0 match. Default: all match.
            subgroups: Of pair batches: integers, shape ``(pairs,)`` or ``(2 * pairs,)``; items of matching pairs in
                the same non-zero subgroup match, too.

        Raises:
            ConfigError: Not exactly one of ``groups`` and ``pairs`` is given.
            DataError: Targets do not fit the embeddings, or embeddings hold NaN.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `update`")
