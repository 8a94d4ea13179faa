"""Regression of cosine similarities on scores."""

from __future__ import annotations

from jaxtyping import Float, Int64, Integer
from torch import Tensor

from simtrain import registry
from simtrain.losses.batch_checks import check_pair_batch
from simtrain.losses.candidate_loss import zero_loss
from simtrain.losses.distances import pair_similarities
from simtrain.losses.pairwise_loss import PairwiseLoss


@registry.losses.register_module()
class CosineSimilarityLoss(PairwiseLoss):
    """Each pair's cosine similarity is to equal its score: their mean squared difference.

    Scores are what a cosine can be, -1 to 1: graded similarities (of 0 to 5 stars, say, divided by 5), or the cosines
    of a teacher. Subgroups play no part. ``n_active`` counts the pairs
    whose cosine is not their score.

    Reference:
        Reimers and Gurevych, "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks", EMNLP 2019,
        https://arxiv.org/abs/1908.10084 (section 3, regression objective function)

    Example:
        >>> import torch
        >>> embeddings, pairs = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[0, 1], [0, 0]])
        >>> CosineSimilarityLoss()(embeddings, pairs, torch.tensor([0.5, 1.0]), torch.zeros(2, dtype=torch.long))
        tensor(0.1250)
    """

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
        similarities = pair_similarities(embeddings[pairs[:, 0]], embeddings[pairs[:, 1]])
        terms = (similarities - labels).square()
        self.note(n_active=terms.count_nonzero())
        return terms.mean()
