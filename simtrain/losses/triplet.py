"""The triplet loss."""

from __future__ import annotations

from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from simtrain import registry
from simtrain.losses.candidate_loss import CandidateLoss
from simtrain.losses.distances import Distance
from simtrain.losses.settings import check_choice, check_positive
from simtrain.losses.triplet_terms import all_triplets_loss, hard_triplet_loss, semi_hard_triplet_loss

_MINING = {"hard": hard_triplet_loss, "semi_hard": semi_hard_triplet_loss, "all": all_triplets_loss}


@registry.losses.register_module()
class TripletLoss(CandidateLoss):
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
        self, margin: float | int = 0.5, distance: str = Distance.COSINE, mining: str = "hard", soft: bool = False
    ) -> None:
        super().__init__()
        self.margin = check_positive("TripletLoss", "margin", margin, allow_zero=True)
        self.distance = Distance.of(distance)
        self.mining = check_choice("TripletLoss", "mining", mining, _MINING)
        self.soft = bool(soft)

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {"margin": self.margin, "distance": self.distance.value, "mining": self.mining, "soft": self.soft}

    def compare(
        self,
        anchors: Float[Tensor, "anchors dim"],
        candidates: Float[Tensor, "candidates dim"],
        positive: Bool[Tensor, "anchors candidates"],
        negative: Bool[Tensor, "anchors candidates"],
    ) -> Float[Tensor, ""]:
        """Loss of anchors against candidates; see :meth:`CandidateLoss.compare`."""
        loss = _MINING[self.mining]
        return loss(anchors, candidates, positive, negative, margin=self.margin, distance=self.distance, soft=self.soft)
