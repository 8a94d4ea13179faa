"""The contrastive loss over the pairs of a batch."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import relu

from simtrain import registry
from simtrain.errors import ConfigError
from simtrain.losses.candidate_loss import CandidateLoss
from simtrain.losses.distances import Distance, distance_matrix, pair_distances
from simtrain.losses.log_sums import masked_mean
from simtrain.losses.mining import farthest_index, nearest_index
from simtrain.losses.settings import check_choice, check_positive

_MINING = ("hard", "all")


@registry.losses.register_module()
class OnlineContrastiveLoss(CandidateLoss):
    """The contrastive loss, over pairs that are formed within the batch from the items' groups.

    A positive pair with distance ``d`` costs ``d^2 / 2``, a negative one ``relu(margin - d)^2 / 2``. The loss is the
    mean over the positive pairs plus the mean over the negative ones. ``n_active`` counts the pairs that cost anything.

    Args:
        margin: Beyond which distance negatives cost nothing, above zero.
        distance: One of :class:`Distance`, except ``"dot"``: it is not a distance that could be squared.
        mining: ``"hard"``: for each anchor its farthest positive and its nearest negative; ``"all"``: all pairs.

    Raises:
        ConfigError: A setting is not one of the above.

    Reference:
        Hadsell, Chopra, LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006 (equation 4).

    Example:
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> loss = OnlineContrastiveLoss(margin=0.5)
        >>> loss(embeddings, torch.tensor([0, 0, 1, 1])), loss(embeddings, torch.tensor([0, 1, 0, 1]))  # 1/2 + 1/8
        (tensor(0.), tensor(0.6250))
    """

    def __init__(self, margin: float | int = 0.5, distance: str = Distance.COSINE, mining: str = "hard") -> None:
        super().__init__()
        self.margin = check_positive("OnlineContrastiveLoss", "margin", margin)
        self.distance = Distance.of(distance)
        if self.distance is Distance.DOT:
            raise ConfigError(
                "OnlineContrastiveLoss squares distances, and 'dot' may be below zero; "
                "use distance='cosine', 'euclidean', 'squared_euclidean' or 'manhattan'"
            )
        self.mining = check_choice("OnlineContrastiveLoss", "mining", mining, _MINING)

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {"margin": self.margin, "distance": self.distance.value, "mining": self.mining}

    def compare(
        self,
        anchors: Float[Tensor, "anchors dim"],
        candidates: Float[Tensor, "candidates dim"],
        positive: Bool[Tensor, "anchors candidates"],
        negative: Bool[Tensor, "anchors candidates"],
    ) -> Float[Tensor, ""]:
        """Loss of anchors against candidates; see :meth:`CandidateLoss.compare`."""
        if self.mining == "all":
            distances = distance_matrix(anchors, candidates, self.distance)
            return self._mean(distances, positive, distances, negative)
        with torch.no_grad():
            distances = distance_matrix(anchors, candidates, self.distance)
            farthest, has_positive = farthest_index(distances, positive)
            nearest, has_negative = nearest_index(distances, negative)
        to_positive = pair_distances(anchors, candidates.index_select(0, farthest), self.distance)
        to_negative = pair_distances(anchors, candidates.index_select(0, nearest), self.distance)
        return self._mean(to_positive, has_positive, to_negative, has_negative)

    def _mean(self, to_positive: Tensor, is_positive: Tensor, to_negative: Tensor, is_negative: Tensor) -> Tensor:
        pull, push = to_positive.square() / 2, relu(self.margin - to_negative).square() / 2
        self.note(n_active=((pull > 0) & is_positive).sum() + ((push > 0) & is_negative).sum())
        return masked_mean(pull, is_positive) + masked_mean(push, is_negative)
