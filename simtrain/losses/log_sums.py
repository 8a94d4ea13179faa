"""Sums of exponentials over some of a row's candidates."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def masked_logsumexp(
    logits: Float[Tensor, "rows columns"], mask: Bool[Tensor, "rows columns"]
) -> Float[Tensor, " rows"]:
    """Log of the sum of ``exp(logits)`` over the columns of ``mask``, with finite gradients.

    Args:
        logits: Shape ``(rows, columns)``, at least one column.
        mask: Which columns are in the sum, of the same shape.

    Returns:
        Shape ``(rows,)``. The sum of nothing is the lowest finite number, so that ``exp`` and ``softplus`` of it are
        zero, with zero gradients; that of ``-inf`` would be NaN.

    Example:
        >>> masked_logsumexp(torch.tensor([[1.0, 2.0], [1.0, 2.0]]), torch.tensor([[True, False], [False, False]]))
        tensor([ 1.0000e+00, -3.4028e+38])
    """
    return logits.masked_fill(~mask, torch.finfo(logits.dtype).min).logsumexp(dim=1)


def masked_mean(values: Float[Tensor, " *shape"], mask: Bool[Tensor, " *shape"]) -> Float[Tensor, ""]:
    """Mean of the values in ``mask``; zero, with zero gradients, where there is none.

    Example:
        >>> masked_mean(torch.tensor([1.0, 5.0]), torch.tensor([False, True]))
        tensor(5.)
    """
    return values.masked_fill(~mask, 0).sum() / mask.sum().clamp(min=1)
