"""The contrastive loss over the pairs of a batch."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu

from simtrain import registry
from simtrain.errors import ConfigError
from simtrain.losses.distances import Distance
from simtrain.losses.row_loss import RowLoss
from simtrain.losses.row_terms import Part, Positives, entries_above, number_of, row_maximum, slices
from simtrain.losses.settings import check_choice, check_positive
from simtrain.losses.triplet_terms import farthest_positive

_MINING = ("hard", "all")


@registry.losses.register_module()
class OnlineContrastiveLoss(RowLoss):
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

    @property
    def picks_pairs(self) -> bool:
        """Whether an anchor has two pairs that count."""
        return self.mining == "hard"

    def row_terms(self, negatives: Float[Tensor, "anchors candidates"], positives: Positives) -> tuple[Part, ...]:
        """Loss of some anchors; see :meth:`RowLoss.row_terms`."""
        nearest = 1.0 if self.distance is Distance.COSINE else 0.0  # the similarity at distance 0
        if self.mining == "all":
            pull = _pull(positives.rows, positives.columns, nearest - positives.values)
            return pull, _push_all(negatives, nearest - self.margin)
        similarity, column = farthest_positive(positives, len(negatives))
        # Not `isfinite`: a NaN is kept, so that the loss becomes NaN too and is noticed.
        rows = (similarity != torch.inf).nonzero().squeeze(1)
        pull = _pull(rows, column[rows], nearest - similarity[rows])
        similarity, column = row_maximum(negatives)
        rows = (similarity != -torch.inf).nonzero().squeeze(1)
        return pull, _push(rows, column[rows], relu(similarity[rows] - (nearest - self.margin)))


def _pull(rows: Tensor, columns: Tensor, distances: Tensor) -> Part:
    count, active = number_of(rows), distances.count_nonzero()
    return Part(distances.square().sum() / 2, count, rows, columns, -distances, active=active)


def _push(rows: Tensor, columns: Tensor, shortage: Tensor) -> Part:
    count, active = number_of(rows), shortage.count_nonzero()
    return Part(shortage.square().sum() / 2, count, rows, columns, shortage, active=active)


def _push_all(negatives: Tensor, limit: float) -> Part:
    """Every negative above a similarity: a list of them, or the whole block where they are many."""
    count = torch.stack([(negatives[some] != -torch.inf).sum() for some in slices(negatives)]).sum()
    found = entries_above(negatives, limit)
    if found is not None:
        return _push(*found, negatives[found] - limit)._replace(count=count)
    shortage, nowhere = negatives.sub_(limit).relu_(), torch.zeros(0, dtype=torch.long, device=negatives.device)
    total = torch.stack([shortage[some].square().sum() for some in slices(shortage)]).sum() / 2
    return Part(total, count, nowhere, nowhere, shortage.new_zeros(0), shortage, shortage.count_nonzero())
