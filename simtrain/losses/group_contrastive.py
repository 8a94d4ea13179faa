"""The contrastive loss over groups."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from simtrain import registry
from simtrain.losses.distances import Distance, listed_distances
from simtrain.losses.log_sums import masked_mean
from simtrain.losses.mined_indices import as_pairs
from simtrain.losses.nested_miners import GivenMiner, describe_miner, nested_miner
from simtrain.losses.row_loss import RowLoss
from simtrain.losses.row_terms import Part, Positives, entries_above, number_of
from simtrain.losses.settings import check_positive


@registry.losses.register_module()
class GroupContrastiveLoss(RowLoss):
    """All pairs of a group are pulled together, all others pushed apart up to a margin.

    ``mean(d_ap - positive_margin) + mean(negative_margin - d_an)``, each mean over the pairs for which it is above
    zero. This is the loss that the cross-batch memory was introduced with; :class:`ContrastiveLoss` is the one over
    labelled pairs.

    Args:
        positive_margin: Below which distance matches cost nothing, zero or above.
        negative_margin: Beyond which distance mismatches cost nothing, above zero.
        distance: One of :class:`Distance`.
        miner: Chooses the pairs; default: all. One of :mod:`simtrain.losses.miners` or of pytorch-metric-learning, or
            its config. Such a loss has no memory form.

    Raises:
        ConfigError: A setting is not one of the above.

    Reference:
        Hadsell, Chopra, LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006; without the
        squares, as in Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020,
        https://arxiv.org/abs/1912.06798 (equation 1).

    Example:
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> GroupContrastiveLoss()(embeddings, torch.tensor([0, 0, 1]))  # 1 + 0.5
        tensor(1.5000)
    """

    def __init__(
        self,
        positive_margin: float | int = 0.0,
        negative_margin: float | int = 0.5,
        distance: str = Distance.COSINE,
        miner: GivenMiner = None,
    ) -> None:
        super().__init__()
        owner = "GroupContrastiveLoss"
        self.positive_margin = check_positive(owner, "positive_margin", positive_margin, allow_zero=True)
        self.negative_margin = check_positive(owner, "negative_margin", negative_margin)
        self.distance = Distance.of(distance)
        self.miner = nested_miner(miner, owner)

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        settings = {
            "positive_margin": self.positive_margin,
            "negative_margin": self.negative_margin,
            "distance": self.distance.value,
        }
        return {**settings, "miner": describe_miner(self.miner)}

    def mined_loss(self, embeddings: Float[Tensor, "batch dim"], indices: Any) -> Float[Tensor, ""]:
        """Loss of the pairs that a miner has chosen; see :meth:`RowLoss.mined_loss`."""
        first, positives, second, negatives = as_pairs(indices)
        pull = listed_distances(embeddings, first, positives, self.distance) - self.positive_margin
        push = self.negative_margin - listed_distances(embeddings, second, negatives, self.distance)
        self.note(n_active=(pull > 0).sum() + (push > 0).sum())
        return masked_mean(pull, ~(pull <= 0)) + masked_mean(push, ~(push <= 0))

    def row_terms(self, negatives: Float[Tensor, "anchors candidates"], positives: Positives) -> tuple[Part, ...]:
        """Loss of some anchors; see :meth:`RowLoss.row_terms`."""
        nearest = 1.0 if self.distance is Distance.COSINE else 0.0  # the similarity at distance 0
        beyond = nearest - positives.values - self.positive_margin
        # Not `>`: a NaN is kept, so that the loss becomes NaN too and is noticed.
        rows, columns, excess = positives._replace(values=beyond).where((beyond <= 0).logical_not_())
        pull = Part(excess.sum(), number_of(rows), rows, columns, torch.full_like(excess, -1))
        return pull, _pushed(negatives, nearest - self.negative_margin)


def _pushed(negatives: Tensor, limit: float) -> Part:
    """Negatives above a similarity: a list of them, or the whole block where they are many."""
    found = entries_above(negatives, limit)
    if found is not None:
        excess = negatives[found] - limit
        return Part(excess.sum(), number_of(excess), *found, torch.ones_like(excess))
    excess = negatives.sub_(limit).relu_()
    total, nothing = excess.sum(), excess.new_zeros(0)
    places = torch.zeros(0, dtype=torch.long, device=excess.device)
    slope = excess.sign_()
    return Part(total, slope.count_nonzero(), places, places, nothing, slope)
