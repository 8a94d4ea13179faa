"""The FastAP loss."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from simtrain import registry
from simtrain.errors import ConfigError
from simtrain.losses.distances import similarity_matrix
from simtrain.losses.log_sums import masked_mean
from simtrain.losses.row_loss import RowLoss
from simtrain.losses.row_terms import Part, Positives, slices


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
    return _precision(of_positives, of_negatives, positive.sum(dim=1))


def fast_ap_rows(negatives: Float[Tensor, "anchors candidates"], positives: Positives, *, num_bins: int = 10) -> Part:
    """One minus :func:`fast_average_precision`, over a block of cosines; counted are the anchors with a positive.

    Args:
        negatives: Cosines, shape ``(anchors, candidates)``; ``-inf`` where a candidate is no negative. Written to.
        positives: The positives, in the order of the anchors.
        num_bins: Into how many bins the range 0 to 4 is divided.

    Example:
        >>> one = Positives(torch.tensor([0]), torch.tensor([0]), torch.tensor([-1.0]))
        >>> fast_ap_rows(torch.tensor([[-torch.inf, 1.0]]), one).total
        tensor(0.5000)
    """
    rows, columns, values = positives
    n_rows = len(negatives)
    n_positives = rows.bincount(minlength=n_rows)
    index, share, _ = _bins(values, num_bins)
    index = index.add_(rows, alpha=num_bins + 1)
    of_positives = values.new_zeros(n_rows * (num_bins + 1)).index_add_(0, index, 1 - share)
    of_positives = of_positives.index_add_(0, index + 1, share).view(n_rows, num_bins + 1)
    of_negatives = torch.zeros_like(of_positives)
    for some in slices(negatives):
        index, share, _ = _bins(negatives[some], num_bins)
        counted = (negatives[some] != -torch.inf).to(share.dtype)
        share.mul_(counted)
        of_negatives[some].scatter_add_(1, index.add_(1), share).scatter_add_(1, index.sub_(1), counted.sub_(share))
    losses, by_positives, by_negatives = _losses_and_slopes(of_positives, of_negatives, n_positives)
    for some in slices(negatives):
        index, _, slope = _bins(negatives[some], num_bins)
        negatives[some] = by_negatives[some].gather(1, index).mul_(slope)
    index, _, slope = _bins(values, num_bins)
    slopes = by_positives.reshape(-1).index_select(0, index.add_(rows, alpha=num_bins)).mul_(slope)
    return Part(losses.sum(), (n_positives > 0).sum(), rows, columns, slopes, negatives, losses.count_nonzero())


def _bins(similarities: Tensor, num_bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Bin below each similarity's place, its share in the bin above, and the derivative of its place."""
    places = (1 - similarities).mul_(num_bins / 2)
    slope = ((places >= 0) & (places <= num_bins)).to(places.dtype).mul_(-num_bins / 2)
    places.clamp_(0, num_bins)
    below = places.floor().nan_to_num_(0.0).clamp_(0, num_bins - 1)
    return below.long(), places.sub_(below), slope


def _losses_and_slopes(
    of_positives: Tensor, of_negatives: Tensor, n_positives: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of each row, and its derivatives by the place of a candidate within each bin."""
    with torch.enable_grad():
        histograms = of_positives.requires_grad_(), of_negatives.requires_grad_()
        losses = (1 - _precision(*histograms, n_positives)).masked_fill(n_positives == 0, 0)
        total = losses.sum()
    # Moving on, a candidate leaves one bin for the next.
    slopes = [slope.diff(dim=1) for slope in torch.autograd.grad(total, histograms)]
    return losses.detach(), slopes[0], slopes[1]


def _precision(of_positives: Tensor, of_negatives: Tensor, n_positives: Tensor) -> Tensor:
    positives_until = of_positives.cumsum(dim=1)
    all_until = positives_until + of_negatives.cumsum(dim=1)
    filled = all_until.detach() != 0  # true for a NaN
    # The inner `where` keeps 0 / 0 out of the backward pass.
    ratios = of_positives * positives_until / all_until.where(filled, torch.ones_like(all_until))
    return ratios.sum(dim=1) / n_positives.clamp(min=1)


@registry.losses.register_module()
class FastAPLoss(RowLoss):
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

    def row_terms(self, negatives: Float[Tensor, "anchors candidates"], positives: Positives) -> tuple[Part, ...]:
        """Loss of some anchors against a memory; see :meth:`RowLoss.row_terms`."""
        return (fast_ap_rows(negatives, positives, num_bins=self.num_bins),)
