"""The CoSENT loss."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int64, Integer
from torch import Tensor
from torch.nn.functional import softplus

from simtrain import registry
from simtrain.losses.batch_checks import check_pair_batch
from simtrain.losses.candidate_loss import zero_loss
from simtrain.losses.distances import Distance, pair_similarities
from simtrain.losses.log_sums import masked_logsumexp
from simtrain.losses.pairwise_loss import PairwiseLoss
from simtrain.losses.settings import check_positive


def order_loss(
    similarities: Float[Tensor, " n_pairs"], labels: Float[Tensor, " n_pairs"], *, scale: float = 20.0
) -> Float[Tensor, ""]:
    """``log(1 + sum of exp(scale * (s_j - s_i)))`` over all ``i`` and ``j`` in which ``i`` has the higher label.

    Args:
        similarities: Shape ``(n_pairs,)``, at least one.
        labels: Shape ``(n_pairs,)``; only their order matters.
        scale: Factor of the similarities.

    Returns:
        A scalar. Memory is of the order of n_pairs x n_pairs.

    Example:
        >>> import torch
        >>> order_loss(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]))  # log 2
        tensor(0.6931)
    """
    differences = (similarities - similarities.unsqueeze(1)) * scale
    higher = labels.unsqueeze(1) > labels
    return softplus(masked_logsumexp(differences.view(1, -1), higher.view(1, -1))).squeeze(0)


@registry.losses.register_module()
class CoSENTLoss(PairwiseLoss):
    """Pairs with a higher score are to be more similar than those with a lower one; for graded scores.

    Subgroups play no part. A batch whose scores are all equal has a loss of zero. ``n_active`` counts the comparisons,
    (higher, lower) pairs of pairs; none where their loss is zero.

    Args:
        scale: Factor of the similarities, above zero.
        distance: One of :class:`Distance`; similarities are cosines, dot products or negated distances.

    Raises:
        ConfigError: A setting is not one of the above.

    Reference:
        Su, "CoSENT: a more efficient sentence vector scheme than Sentence-BERT", 2022,
        https://kexue.fm/archives/8847; Huang et al., "CoSENT: Consistent Sentence Embedding via Similarity Ranking",
        IEEE/ACM TASLP 2024.

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> pairs, rows = torch.tensor([[0, 2], [1, 3]]), torch.zeros(4, dtype=torch.long)
        >>> CoSENTLoss(scale=1.0)(embeddings, pairs, torch.tensor([0.1, 0.9]), rows)  # log(1 + e)
        tensor(1.3133)
    """

    def __init__(self, scale: float | int = 20.0, distance: str = Distance.COSINE) -> None:
        super().__init__()
        self.scale = check_positive("CoSENTLoss", "scale", scale)
        self.distance = Distance.of(distance)

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {"scale": self.scale, "distance": self.distance.value}

    def forward(
        self,
        embeddings: Float[Tensor, "rows dim"],
        pairs: Int64[Tensor, "n_pairs 2"],
        labels: Float[Tensor, " n_pairs"],
        subgroups: Integer[Tensor, " rows"],
    ) -> Float[Tensor, ""]:
        """Loss of a batch; see :meth:`PairwiseLoss.forward`."""
        check_pair_batch(embeddings, pairs, labels, subgroups)
        if len(pairs) == 0:
            self.note(n_active=0)
            return zero_loss(embeddings)
        similarities = pair_similarities(embeddings[pairs[:, 0]], embeddings[pairs[:, 1]], self.distance)
        loss = order_loss(similarities, labels, scale=self.scale)
        self.note(n_active=(labels.unsqueeze(1) > labels).sum() * (loss.detach() != 0))
        return loss
