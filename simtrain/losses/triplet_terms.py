"""The formulas of the triplet loss, over anchors, candidates and masks; none needs more than anchors x candidates.

An anchor is compared with its positives and negatives only; one that lacks either takes no part.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import relu, softplus

from simtrain.losses.distances import Distance, distance_matrix, pair_distances
from simtrain.losses.mining import count_below, farthest_index, nearest_index, nearest_index_beyond


def hard_triplet_loss(
    anchors: Float[Tensor, "anchors dim"],
    candidates: Float[Tensor, "candidates dim"],
    positive: Bool[Tensor, "anchors candidates"],
    negative: Bool[Tensor, "anchors candidates"],
    *,
    margin: float = 0.5,
    distance: str = Distance.COSINE,
    soft: bool = False,
) -> Float[Tensor, ""]:
    """Each anchor with its farthest positive and its nearest negative; mean over anchors that have both.

    Args:
        anchors: Shape ``(anchors, dim)``.
        candidates: Shape ``(candidates, dim)``.
        positive: Shape ``(anchors, candidates)``.
        negative: Shape ``(anchors, candidates)``.
        margin: By how much negatives are to be farther than positives.
        distance: One of :class:`Distance`.
        soft: ``softplus(d_ap - d_an)`` in place of ``relu(d_ap - d_an + margin)``.

    Returns:
        A scalar.

    Example:
        >>> x, same = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[False, True, False]])
        >>> hard_triplet_loss(x[:1], x, same, torch.tensor([[False, False, True]]), margin=2.5, distance="euclidean")
        tensor(0.5000)
    """
    # The matrix serves for picking alone: the gradient then runs through 2 distances an anchor, not through all.
    with torch.no_grad():
        distances = distance_matrix(anchors, candidates, distance)
        hardest_positive, has_positive = farthest_index(distances, positive)
        hardest_negative, has_negative = nearest_index(distances, negative)
    to_positive = pair_distances(anchors, candidates.index_select(0, hardest_positive), distance)
    to_negative = pair_distances(anchors, candidates.index_select(0, hardest_negative), distance)
    return _mean_where(_penalty(to_positive - to_negative, margin, soft), has_positive & has_negative)


def semi_hard_triplet_loss(
    anchors: Float[Tensor, "anchors dim"],
    candidates: Float[Tensor, "candidates dim"],
    positive: Bool[Tensor, "anchors candidates"],
    negative: Bool[Tensor, "anchors candidates"],
    *,
    margin: float = 0.5,
    distance: str = Distance.COSINE,
    soft: bool = False,
) -> Float[Tensor, ""]:
    """Each anchor and positive with the nearest negative beyond the positive; mean over those pairs.

    Where every negative is nearer than the positive, the farthest negative is taken: the semi-hard negative of
    FaceNet does not exist there, and its authors leave the choice open.

    Args:
        anchors: Shape ``(anchors, dim)``.
        candidates: Shape ``(candidates, dim)``.
        positive: Shape ``(anchors, candidates)``.
        negative: Shape ``(anchors, candidates)``.
        margin: By how much negatives are to be farther than positives.
        distance: One of :class:`Distance`.
        soft: ``softplus(d_ap - d_an)`` in place of ``relu(d_ap - d_an + margin)``.

    Returns:
        A scalar.

    Example:
        >>> x, same = torch.tensor([[0.0], [2.0], [1.0], [3.0]]), torch.tensor([[False, True, False, False]])
        >>> others = torch.tensor([[False, False, True, True]])
        >>> semi_hard_triplet_loss(x[:1], x, same, others, margin=1.5, distance="euclidean")
        tensor(0.5000)
    """
    distances = distance_matrix(anchors, candidates, distance)
    to_negative = distances.gather(1, nearest_index_beyond(distances, negative))
    complete = positive & negative.any(dim=1, keepdim=True)
    return _mean_where(_penalty(distances - to_negative, margin, soft), complete)


def all_triplets_loss(
    anchors: Float[Tensor, "anchors dim"],
    candidates: Float[Tensor, "candidates dim"],
    positive: Bool[Tensor, "anchors candidates"],
    negative: Bool[Tensor, "anchors candidates"],
    *,
    margin: float = 0.5,
    distance: str = Distance.COSINE,
    soft: bool = False,
) -> Float[Tensor, ""]:
    """Every triplet; mean over the active ones, those with a loss above zero (all of them when ``soft``).

    Args:
        anchors: Shape ``(anchors, dim)``.
        candidates: Shape ``(candidates, dim)``.
        positive: Shape ``(anchors, candidates)``.
        negative: Shape ``(anchors, candidates)``.
        margin: By how much negatives are to be farther than positives.
        distance: One of :class:`Distance`.
        soft: ``softplus(d_ap - d_an)`` in place of ``relu(d_ap - d_an + margin)``.

    Returns:
        A scalar.

    Example:
        >>> x, same = torch.tensor([[0.0], [2.0], [1.0], [3.0]]), torch.tensor([[False, True, False, False]])
        >>> others = torch.tensor([[False, False, True, True]])
        >>> all_triplets_loss(x[:1], x, same, others, margin=1.5, distance="euclidean")  # (2.5 + 0.5) / 2
        tensor(1.5000)
    """
    distances = distance_matrix(anchors, candidates, distance)
    if soft:
        loss: Tensor = _MeanSoftplus.apply(distances, positive, negative)  # type: ignore[no-untyped-call]
        return loss
    return _mean_active_hinge(distances, positive, negative, margin)


def _penalty(difference: Tensor, margin: float, soft: bool) -> Tensor:
    return softplus(difference) if soft else relu(difference + margin)


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(~mask, 0).sum() / mask.sum().clamp(min=1)


def _mean_active_hinge(distances: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Mean of ``d_ap + margin - d_an`` over triplets in which it is above zero.

    In the sum, each distance is multiplied by the number of active triplets that it is in: added as a positive,
    taken off as a negative. Sorting counts them, and no triplet is ever written down. The counts are constants for
    the gradient, as the choice of active triplets is in the paper's formula.
    """
    with torch.no_grad():
        limits = distances + margin
        as_positive = count_below(distances, negative, limits).masked_fill_(~positive, 0)
        not_above = count_below(limits, positive, distances, or_equal=True)
        as_negative = (positive.sum(dim=1, keepdim=True) - not_above).masked_fill_(~negative, 0)
        n_active = as_positive.sum()
        weights = (as_positive - as_negative).to(distances.dtype) / n_active.clamp(min=1)
    return (weights * distances).sum() + margin * (n_active > 0).to(distances.dtype)


class _MeanSoftplus(torch.autograd.Function):
    """Mean of ``softplus(d_ap - d_an)`` over all triplets, a slice of (anchor, positive) pairs at a time.

    The gradient is summed up along with the value, so that no slice is kept. Finding the pairs makes a GPU wait
    once a step.
    """

    @staticmethod
    def forward(ctx: Any, distances: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        total, slope = distances.new_zeros(()), torch.zeros_like(distances)
        n_triplets = (positive.sum(dim=1) * negative.sum(dim=1)).sum().clamp(min=1)
        # As many pairs at a time as there are anchors: a slice is as large as the distance matrix.
        for pairs in torch.split(positive.nonzero(), len(distances)):
            anchor, column = pairs.unbind(dim=1)
            difference = distances[anchor, column].unsqueeze(1) - distances[anchor]
            is_triplet = negative[anchor]
            total += softplus(difference).masked_fill_(~is_triplet, 0).sum()
            steepness = difference.sigmoid_().masked_fill_(~is_triplet, 0)
            slope.index_put_((anchor, column), steepness.sum(dim=1), accumulate=True)
            slope.index_add_(0, anchor, steepness, alpha=-1)
        ctx.save_for_backward(slope.div_(n_triplets))
        return total / n_triplets

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return grad_outputs[0] * slope, None, None
