"""The FastAP loss."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from simtrain import registry
from simtrain.errors import ConfigError
from simtrain.losses.candidate_loss import CandidateLoss
from simtrain.losses.distances import similarity_matrix
from simtrain.losses.log_sums import masked_mean


def soft_histograms(
    places: Float[Tensor, "anchors candidates"], *masks: Bool[Tensor, "anchors candidates"], num_bins: int
) -> list[Float[Tensor, "anchors bins"]]:
    """For each anchor, how many of its candidates fall into each bin, by linear interpolation.

    The bins have their centres at 0, 1, ..., ``num_bins``. A candidate between two of them counts for both, by its
    nearness (the triangular kernel of Ustinova and Lempitsky's histogram loss). The work is of the order of anchors
    x candidates, whatever the number of bins.

    Args:
        places: Between 0 and ``num_bins``, shape ``(anchors, candidates)``.
        *masks: Which candidates count, one mask a histogram.
        num_bins: Number of the last centre.

    Returns:
        For each mask, shape ``(anchors, num_bins + 1)``.

    Example:
        >>> soft_histograms(torch.tensor([[0.25, 2.0]]), torch.tensor([[True, True]]), num_bins=2)
        [tensor([[0.7500, 0.2500, 1.0000]])]
    """
    # A NaN has no whole part: any bin will do, its share stays NaN.
    below = places.detach().floor().nan_to_num(0.0).clamp(0, num_bins - 1)
    index, share = below.long(), places - below
    histograms = []
    for mask in masks:
        empty = places.new_zeros(len(places), num_bins + 1)
        lower = empty.scatter_add(1, index, (1 - share).masked_fill(~mask, 0))
        histograms.append(lower.scatter_add(1, index + 1, share.masked_fill(~mask, 0)))
    return histograms


def fast_average_precision(
    similarities: Float[Tensor, "anchors candidates"],
    positive: Bool[Tensor, "anchors candidates"],
    negative: Bool[Tensor, "anchors candidates"],
    *,
    num_bins: int = 10,
) -> Float[Tensor, " anchors"]:
    """Each anchor's average precision, approximated over a histogram of squared distances: equation 5.

    Args:
        similarities: Cosines, shape ``(anchors, candidates)``; the squared distance of unit vectors is ``2 - 2 cos``.
        positive: Shape ``(anchors, candidates)``.
        negative: Shape ``(anchors, candidates)``.
        num_bins: Into how many bins the range 0 to 4 is divided.

    Returns:
        Shape ``(anchors,)``, from 0 to 1; zero for an anchor without a positive.

    Example:
        >>> s, mask = torch.tensor([[1.0, -1.0]]), torch.tensor([[True, False]])
        >>> fast_average_precision(s, mask, ~mask), fast_average_precision(s, ~mask, mask)
        (tensor([1.]), tensor([0.5000]))
    """
    places = ((1 - similarities) * (num_bins / 2)).clamp(0, num_bins)
    of_positives, of_negatives = soft_histograms(places, positive, negative, num_bins=num_bins)
    positives_until = of_positives.cumsum(dim=1)
    all_until = positives_until + of_negatives.cumsum(dim=1)
    filled = all_until.detach() != 0  # true for a NaN
    # The inner `where` keeps 0 / 0 out of the backward pass.
    ratios = of_positives * positives_until / all_until.where(filled, torch.ones_like(all_until))
    return ratios.sum(dim=1) / positive.sum(dim=1).clamp(min=1)


@registry.losses.register_module()
class FastAPLoss(CandidateLoss):
    """One minus the average precision of ranking the candidates, over a soft histogram of distances.

    Distances are squared euclidean ones between unit vectors. Mean over the anchors that have a positive; ``n_active``
    counts those with a loss other than zero.

    Args:
        num_bins: Bins of the histogram, one or more (``L`` of the paper, which has 10).

    Raises:
        ConfigError: It is no such number.

    Reference:
        Cakir et al., "Deep Metric Learning to Rank", CVPR 2019 (equations 5 and 8),
        https://openaccess.thecvf.com/content_CVPR_2019/papers/Cakir_Deep_Metric_Learning_to_Rank_CVPR_2019_paper.pdf

    Example:
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
        >>> FastAPLoss()(embeddings, torch.tensor([0, 0, 1, 1]))
        tensor(0.)
    """

    def __init__(self, num_bins: int = 10) -> None:
        super().__init__()
        if not isinstance(num_bins, int) or isinstance(num_bins, bool) or num_bins < 1:
            raise ConfigError(f"FastAPLoss: num_bins must be a whole number, 1 or more, got {num_bins!r}")
        self.num_bins = num_bins

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {"num_bins": self.num_bins}

    def compare(
        self,
        anchors: Float[Tensor, "anchors dim"],
        candidates: Float[Tensor, "candidates dim"],
        positive: Bool[Tensor, "anchors candidates"],
        negative: Bool[Tensor, "anchors candidates"],
    ) -> Float[Tensor, ""]:
        """Loss of anchors against candidates; see :meth:`CandidateLoss.compare`."""
        has_positive = positive.any(dim=1)
        precision = fast_average_precision(
            similarity_matrix(anchors, candidates), positive, negative, num_bins=self.num_bins
        )
        terms = 1 - precision
        self.note(n_active=terms.detach().masked_fill(~has_positive, 0).count_nonzero())
        return masked_mean(terms, has_positive)
