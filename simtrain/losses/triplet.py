"""The triplet loss."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu, softplus

from simtrain import registry
from simtrain.losses.batch_blocks import within_batch
from simtrain.losses.distances import Distance, listed_distances, similarity_matrix
from simtrain.losses.mined_indices import Pairs, as_triplets
from simtrain.losses.nested_miners import GivenMiner, describe_miner, nested_miner
from simtrain.losses.row_loss import RowLoss
from simtrain.losses.row_terms import Part, Positives, noted_terms
from simtrain.losses.settings import check_choice, check_positive
from simtrain.losses.triplet_terms import all_triplets, hard_triplets, semi_hard_triplets

_MINING = {"hard": hard_triplets, "semi_hard": semi_hard_triplets, "all": all_triplets}


@registry.losses.register_module()
class TripletLoss(RowLoss):
    """Positives are to be nearer to an anchor than negatives, by a margin: ``relu(d_ap - d_an + margin)``.

    ========= ======================================================== ==============================
    mining    triplets                                                 mean over
    ========= ======================================================== ==============================
    hard      an anchor, its farthest positive, its nearest negative   anchors that have both
    semi_hard an anchor, each positive, and the nearest negative       (anchor, positive) pairs
              beyond that positive; the farthest negative where
              all are nearer
    all       every anchor, positive and negative                      active triplets (loss above 0)
    ========= ======================================================== ==============================

    A batch without any triplet has a loss of zero and zero gradients. Memory is of the order of batch x batch.

    Args:
        margin: By how much negatives are to be farther than positives, zero or above.
        distance: One of :class:`Distance`.
        mining: ``"hard"``, ``"semi_hard"`` or ``"all"``.
        soft: ``softplus(d_ap - d_an)`` in place of the hinge. It keeps pulling beyond any margin, so ``margin`` is
            unused; with ``mining="all"``, every triplet is active.
        miner: Chooses the triplets in place of ``mining``, and the mean is over them: one of
            :mod:`simtrain.losses.miners` or of pytorch-metric-learning, or its config. Such a loss has no memory form.

    Raises:
        ConfigError: A setting is not one of the above.

    Reference:
        Schroff et al., "FaceNet", CVPR 2015, https://arxiv.org/abs/1503.03832 (semi-hard, equation 4);
        Hermans et al., "In Defense of the Triplet Loss", 2017, https://arxiv.org/abs/1703.07737 (hard, all, soft).

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [-1.0, 0.0]])
        >>> TripletLoss(margin=0.5)(embeddings, torch.tensor([0, 0, 1, 1]))
        tensor(1.)
    """

    def __init__(
        self,
        margin: float | int = 0.5,
        distance: str = Distance.COSINE,
        mining: str = "hard",
        soft: bool = False,
        miner: GivenMiner = None,
    ) -> None:
        super().__init__()
        self.margin = check_positive("TripletLoss", "margin", margin, allow_zero=True)
        self.distance = Distance.of(distance)
        self.mining = check_choice("TripletLoss", "mining", mining, _MINING)
        self.soft = bool(soft)
        self.miner = nested_miner(miner, "TripletLoss")

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        settings = {"margin": self.margin, "distance": self.distance.value, "mining": self.mining, "soft": self.soft}
        return {**settings, "miner": describe_miner(self.miner)}

    def mined_loss(self, embeddings: Float[Tensor, "batch dim"], indices: Any) -> Float[Tensor, ""]:
        """Mean over the triplets that a miner has chosen; see :meth:`RowLoss.mined_loss`."""
        if len(indices) == 4 and _are_distinct(indices, len(embeddings)):
            return self._of_pairs(embeddings, *indices)
        anchors, positives, negatives = as_triplets(indices)
        to_positive = listed_distances(embeddings, anchors, positives, self.distance)
        difference = to_positive - listed_distances(embeddings, anchors, negatives, self.distance)
        penalty = softplus(difference) if self.soft else relu(difference + self.margin)
        self.note(n_active=penalty.count_nonzero())
        return penalty.sum() / max(len(anchors), 1)

    def _of_pairs(
        self, embeddings: Tensor, first: Tensor, positives: Tensor, second: Tensor, negatives: Tensor
    ) -> Tensor:
        """Each anchor's positives with each of its negatives: of these triplets there may be as many as batch^3."""
        first, order = first.sort(stable=True)
        positives, size = positives.index_select(0, order), len(embeddings)
        takes_part = torch.zeros(size, size, dtype=torch.bool, device=embeddings.device)
        takes_part[first, positives] = takes_part[second, negatives] = True
        n_triplets = (first.bincount(minlength=size) * second.bincount(minlength=size)).sum()

        def terms(negatives: Tensor, positives: Positives) -> tuple[Part, ...]:
            part = all_triplets(negatives, positives, margin=self.margin, soft=self.soft)
            return (part._replace(count=n_triplets, active=part.count),)

        similarities = similarity_matrix(embeddings, embeddings, self.distance)
        return within_batch(similarities, (first, positives), takes_part.logical_not_(), noted_terms(terms, self.note))

    @property
    def picks_pairs(self) -> bool:
        """Whether an anchor has two pairs that count."""
        return self.mining == "hard"

    def row_terms(self, negatives: Float[Tensor, "anchors candidates"], positives: Positives) -> tuple[Part, ...]:
        """Loss of some anchors; see :meth:`RowLoss.row_terms`."""
        return (_MINING[self.mining](negatives, positives, margin=self.margin, soft=self.soft),)


def _are_distinct(pairs: Pairs, size: int) -> bool:
    """Whether no pair of an anchor and a negative comes twice."""
    _, _, anchors, negatives = pairs
    places = torch.zeros(size * size, dtype=torch.bool, device=anchors.device)
    return int(places.index_fill_(0, anchors * size + negatives, True).sum()) == len(anchors)
