"""Miners: which triplets or pairs of a batch a loss is to look at.

A miner is called as those of pytorch-metric-learning are, ``miner(embeddings, groups)``, and gives what they give: the
rows of triplets ``(anchors, positives, negatives)``, or of pairs ``(anchors, positives, anchors, negatives)``. So
either kind of miner works with either library's losses.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from simtrain import registry
from simtrain.losses.batch_checks import check_group_batch
from simtrain.losses.distances import Distance, distance_matrix
from simtrain.losses.group_masks import batch_masks
from simtrain.losses.mined_indices import Pairs, Triplets
from simtrain.losses.mining import farthest_index, nearest_index, nearest_index_beyond
from simtrain.losses.settings import check_choice, check_positive


class Miner(nn.Module):
    """Base of the miners. A subclass implements :meth:`mine`.

    Args:
        distance: One of :class:`Distance`.

    Example:
        >>> class Everything(Miner):
        ...     def mine(self, distances, positive, negative):
        ...         (a1, p), (a2, n) = positive.nonzero().T, negative.nonzero().T
        ...         return a1, p, a2, n
        >>> [rows.tolist() for rows in Everything()(torch.eye(3), torch.tensor([0, 0, 1]))]
        [[0, 1], [1, 0], [0, 1, 2, 2], [2, 2, 0, 1]]
    """

    def __init__(self, distance: str = Distance.COSINE) -> None:
        super().__init__()
        self.distance = Distance.of(distance)

    def mine(self, distances: Tensor, positive: Tensor, negative: Tensor) -> Triplets | Pairs:
        """Choose by distance.

        Args:
            distances: Shape ``(batch, batch)``, without gradient.
            positive: True where a column is the row's positive.
            negative: True where it is its negative.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `mine`")

    @torch.no_grad()
    def forward(self, embeddings: Float[Tensor, "batch dim"], groups: Integer[Tensor, " batch"]) -> Triplets | Pairs:
        """Rows of the triplets, or pairs, that are chosen.

        Args:
            embeddings: Shape ``(batch, dim)``, floating point.
            groups: Group of each embedding, shape ``(batch,)``.

        Raises:
            DataError: A shape or a dtype is wrong.
        """
        check_group_batch(embeddings, groups)
        return self.mine(distance_matrix(embeddings, embeddings, self.distance), *batch_masks(groups))

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {"distance": self.distance.value}

    def extra_repr(self) -> str:
        """Settings, as ``print(miner)`` shows them."""
        return ", ".join(f"{name}={value!r}" for name, value in self.get_config_dict().items())


@registry.miners.register_module()
class HardestMiner(Miner):
    """Each item with its farthest positive and its nearest negative.

    Args:
        distance: One of :class:`Distance`.

    Reference:
        Hermans et al., "In Defense of the Triplet Loss", 2017, https://arxiv.org/abs/1703.07737

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [3.0]])
        >>> [rows.tolist() for rows in HardestMiner("euclidean")(points, torch.tensor([0, 0, 1]))]
        [[0, 1], [1, 0], [2, 2]]
    """

    def mine(self, distances: Tensor, positive: Tensor, negative: Tensor) -> Triplets:
        """See :meth:`Miner.mine`."""
        return _chosen(farthest_index(distances, positive), nearest_index(distances, negative))


@registry.miners.register_module()
class SemiHardMiner(Miner):
    """Each item and positive with the nearest negative that is farther than the positive, if there is one.

    Args:
        distance: One of :class:`Distance`.

    Reference:
        Schroff et al., "FaceNet", CVPR 2015, https://arxiv.org/abs/1503.03832 (equation 4)

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [3.0], [-0.5]])
        >>> [rows.tolist() for rows in SemiHardMiner("euclidean")(points, torch.tensor([0, 0, 1, 1]))]
        [[0, 1], [1, 0], [2, 3]]
    """

    def mine(self, distances: Tensor, positive: Tensor, negative: Tensor) -> Triplets:
        """See :meth:`Miner.mine`."""
        anchors, positives = positive.nonzero().unbind(dim=1)
        negatives = nearest_index_beyond(distances, negative)[anchors, positives]
        is_beyond = negative[anchors, negatives] & (distances[anchors, negatives] > distances[anchors, positives])
        return anchors[is_beyond], positives[is_beyond], negatives[is_beyond]


_NEGATIVES = ("semi_hard", "hard")


@registry.miners.register_module()
class EasyPositiveMiner(Miner):
    """Each item with its nearest positive: a group may stay spread out, as long as every item has a neighbour of it.

    Args:
        negatives: ``"semi_hard"`` for the nearest negative beyond that positive (items without one are left out), or
            ``"hard"`` for the nearest negative.
        distance: One of :class:`Distance`.

    Raises:
        ConfigError: A setting is not one of the above.

    Reference:
        Xuan et al., "Improved Embeddings with Easy Positive Triplet Mining", WACV 2020,
        https://arxiv.org/abs/1904.04370

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [3.0], [9.0]])
        >>> [rows.tolist() for rows in EasyPositiveMiner("hard", "euclidean")(points, torch.tensor([0, 0, 1, 0]))]
        [[0, 1, 3], [1, 0, 1], [2, 2, 2]]
    """

    def __init__(self, negatives: str = "semi_hard", distance: str = Distance.COSINE) -> None:
        super().__init__(distance)
        self.negatives = check_choice("EasyPositiveMiner", "negatives", negatives, _NEGATIVES)

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {"negatives": self.negatives, "distance": self.distance.value}

    def mine(self, distances: Tensor, positive: Tensor, negative: Tensor) -> Triplets:
        """See :meth:`Miner.mine`."""
        easiest, has_positive = nearest_index(distances, positive)
        if self.negatives == "semi_hard":
            to_positive = distances.gather(1, easiest.unsqueeze(1))
            negative = negative & (distances > to_positive)
        return _chosen((easiest, has_positive), nearest_index(distances, negative))


@registry.miners.register_module()
class DistanceWeightedMiner(Miner):
    """Each item and positive with a negative that is drawn so that all distances are about equally likely.

    On a sphere, most items are at about the same distance from each other; a negative is therefore drawn with one over
    the density of its distance. Distances are those of unit vectors. Drawn from torch's global generator.

    Args:
        cutoff: Nearer negatives are drawn as if they were at this distance, above zero.
        farthest: Negatives at this distance or beyond are never drawn, up to 2.

    Raises:
        ConfigError: A setting is not one of the above.

    Reference:
        Wu et al., "Sampling Matters in Deep Embedding Learning", ICCV 2017, https://arxiv.org/abs/1706.07567

    Example:
        >>> points = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.8, 0.6, 0.0], [-1.0, 0.0, 0.0]])
        >>> anchors, _, negatives = DistanceWeightedMiner()(points, torch.tensor([0, 0, 1, 2]))
        >>> anchors.tolist(), negatives.tolist()  # -1 is too far from 0, and from 1
        ([0, 1], [2, 2])
    """

    def __init__(self, cutoff: float | int = 0.5, farthest: float | int = 1.4) -> None:
        super().__init__(Distance.COSINE)
        self.cutoff = check_positive("DistanceWeightedMiner", "cutoff", cutoff)
        self.farthest = check_positive("DistanceWeightedMiner", "farthest", farthest)
        self._dim = 2

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {"cutoff": self.cutoff, "farthest": self.farthest}

    @torch.no_grad()
    def forward(self, embeddings: Float[Tensor, "batch dim"], groups: Integer[Tensor, " batch"]) -> Triplets | Pairs:
        """See :meth:`Miner.forward`."""
        self._dim = embeddings.shape[-1]
        return super().forward(embeddings, groups)

    def mine(self, distances: Tensor, positive: Tensor, negative: Tensor) -> Triplets:
        """See :meth:`Miner.mine`."""
        real = (2 * distances).clamp_(min=0).sqrt_()
        weights = self.log_weights(real.clamp(min=self.cutoff))
        allowed = negative & (real < self.farthest)
        weights = weights.masked_fill_(~allowed, -torch.inf)
        anchors, positives = (positive & allowed.any(dim=1, keepdim=True)).nonzero().unbind(dim=1)
        if len(anchors) == 0:
            return anchors, positives, anchors
        weights = (weights - weights.amax(dim=1, keepdim=True)).exp_().nan_to_num_(nan=0.0)  # NaN: none is allowed
        reached = weights.cumsum(dim=1)
        # A row for each anchor, with a place for each of its positives: no more entries than there are distances.
        counts = anchors.bincount(minlength=len(distances))
        drawn = torch.rand(len(distances), int(counts.max()), dtype=reached.dtype, device=reached.device)
        total = reached[:, -1:]
        drawn = torch.minimum(drawn.mul_(total), torch.nextafter(total, torch.zeros_like(total)))
        chosen = torch.searchsorted(reached, drawn, right=True)
        before = (counts.cumsum(0) - counts).index_select(0, anchors)
        return anchors, positives, chosen[anchors, torch.arange(len(anchors), device=anchors.device) - before]

    def log_weights(self, distances: Tensor) -> Tensor:
        """Log of one over the density of distances between random points of the sphere: equation 3."""
        quarter = (1 - distances.square() / 4).clamp_(min=1e-8)
        return (2 - self._dim) * distances.log() - (self._dim - 3) / 2 * quarter.log_()


@registry.miners.register_module()
class MultiSimilarityMiner(Miner):
    """Pairs: negatives nearer than the farthest positive, and positives farther than the nearest negative.

    Args:
        epsilon: Margin of both rules, zero or above.
        distance: One of :class:`Distance`.

    Raises:
        ConfigError: A setting is not one of the above.

    Reference:
        Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning", CVPR 2019,
        https://arxiv.org/abs/1904.06627 (equations 8 and 9)

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [1.5], [9.0]])
        >>> [rows.tolist() for rows in MultiSimilarityMiner(0, "euclidean")(points, torch.tensor([0, 0, 1, 2]))]
        [[1], [0], [1], [2]]
    """

    def __init__(self, epsilon: float | int = 0.1, distance: str = Distance.COSINE) -> None:
        super().__init__(distance)
        self.epsilon = check_positive("MultiSimilarityMiner", "epsilon", epsilon, allow_zero=True)

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {"epsilon": self.epsilon, "distance": self.distance.value}

    def mine(self, distances: Tensor, positive: Tensor, negative: Tensor) -> Pairs:
        """See :meth:`Miner.mine`."""
        farthest = distances.masked_fill(~positive, -torch.inf).amax(dim=1, keepdim=True)
        nearest = distances.masked_fill(~negative, torch.inf).amin(dim=1, keepdim=True)
        kept_positive = positive & (distances > nearest - self.epsilon)
        kept_negative = negative & (distances < farthest + self.epsilon)
        (first, positives), (second, negatives) = kept_positive.nonzero().T, kept_negative.nonzero().T
        return first, positives, second, negatives


def _chosen(positive: tuple[Tensor, Tensor], negative: tuple[Tensor, Tensor]) -> Triplets:
    (positives, has_positive), (negatives, has_negative) = positive, negative
    anchors = (has_positive & has_negative).nonzero().squeeze(1)
    return anchors, positives[anchors], negatives[anchors]
