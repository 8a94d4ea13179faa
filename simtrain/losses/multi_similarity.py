"""The multi-similarity loss."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

from simtrain import registry
from simtrain.losses.distances import similarity_matrix
from simtrain.losses.log_sums import masked_logsumexp
from simtrain.losses.row_loss import RowLoss
from simtrain.losses.row_terms import Part, Positives
from simtrain.losses.settings import check_positive
from simtrain.losses.softmax_terms import multi_similarity_rows


@torch.no_grad()
def informative_pairs(
    similarities: Float[Tensor, "anchors candidates"],
    positive: Bool[Tensor, "anchors candidates"],
    negative: Bool[Tensor, "anchors candidates"],
    *,
    epsilon: float = 0.1,
) -> tuple[Bool[Tensor, "anchors candidates"], Bool[Tensor, "anchors candidates"]]:
    """The paper's mining: equations 8 and 9.

    A negative is kept if it is more similar than the least similar positive less ``epsilon``; a positive, if it is
    less similar than the most similar negative plus ``epsilon``. An anchor that lacks either keeps nothing.

    Args:
        similarities: Shape ``(anchors, candidates)``.
        positive: Shape ``(anchors, candidates)``.
        negative: Shape ``(anchors, candidates)``.
        epsilon: Margin of both rules.

    Returns:
        ``(positive, negative)`` that are kept, each of shape ``(anchors, candidates)``.

    Example:
        >>> s = torch.tensor([[0.9, 0.5, 0.6, 0.1]])
        >>> positive = torch.tensor([[True, True, False, False]])
        >>> informative_pairs(s, positive, ~positive)
        (tensor([[False,  True, False, False]]), tensor([[False, False,  True, False]]))
    """
    hardest_positive = similarities.masked_fill(~positive, torch.inf).min(dim=1, keepdim=True).values
    hardest_negative = similarities.masked_fill(~negative, -torch.inf).max(dim=1, keepdim=True).values
    # "Not below" rather than "above": a NaN is kept, so that the loss becomes NaN too and is noticed.
    kept_negative = negative & ~(similarities <= hardest_positive - epsilon)
    return positive & ~(similarities >= hardest_negative + epsilon), kept_negative


def multi_similarity_terms(
    similarities: Float[Tensor, "anchors candidates"],
    positive: Bool[Tensor, "anchors candidates"],
    negative: Bool[Tensor, "anchors candidates"],
    *,
    alpha: float = 2.0,
    beta: float = 50.0,
    lambda_: float = 1.0,
) -> Float[Tensor, " anchors"]:
    """Loss of each anchor over given pairs: equation 10.

    Args:
        similarities: Shape ``(anchors, candidates)``.
        positive: Pairs that are pulled, shape ``(anchors, candidates)``.
        negative: Pairs that are pushed, shape ``(anchors, candidates)``.
        alpha: Scale of the positives.
        beta: Scale of the negatives.
        lambda_: Similarity that positives are to be above and negatives below.

    Returns:
        Shape ``(anchors,)``.

    Example:
        >>> s, mask = torch.tensor([[1.0, 1.0]]), torch.tensor([[True, False]])
        >>> multi_similarity_terms(s, mask, ~mask, alpha=1.0, beta=1.0)  # 2 log 2
        tensor([1.3863])
    """
    pull = softplus(masked_logsumexp(-alpha * (similarities - lambda_), positive)) / alpha
    push = softplus(masked_logsumexp(beta * (similarities - lambda_), negative)) / beta
    return pull + push


@registry.losses.register_module()
class MultiSimilarityLoss(RowLoss):
    """Informative pairs are mined, then weighed by their own similarity and by those of the anchor's other pairs.

    On cosine similarities; mean over all anchors. ``n_active`` counts those
    with a loss other than zero.

    Args:
        alpha: Scale of the positives, above zero.
        beta: Scale of the negatives, above zero.
        lambda_: Similarity that positives are to be above and negatives below, zero or above. The paper has 1; its
            authors' later code and pytorch-metric-learning have 0.5.
        epsilon: Margin of the mining, zero or above; None mines nothing, so that all pairs count.

    Raises:
        ConfigError: A setting is not one of the above.

    Reference:
        Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning", CVPR 2019,
        https://arxiv.org/abs/1904.06627 (equations 8 to 10)

    Example:
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> loss = MultiSimilarityLoss(alpha=1.0, beta=1.0)
        >>> loss(embeddings, torch.tensor([0, 0, 1]))  # (log(1 + e) + log(1 + 1 / e) + log(1 + e) + log 2 + 0) / 3
        tensor(1.2110)
    """

    def __init__(
        self,
        alpha: float | int = 2.0,
        beta: float | int = 50.0,
        lambda_: float | int = 1.0,
        epsilon: float | int | None = 0.1,
    ) -> None:
        super().__init__()
        owner = "MultiSimilarityLoss"
        self.alpha, self.beta = check_positive(owner, "alpha", alpha), check_positive(owner, "beta", beta)
        self.lambda_ = check_positive(owner, "lambda_", lambda_, allow_zero=True)
        self.epsilon = None if epsilon is None else check_positive(owner, "epsilon", epsilon, allow_zero=True)

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {"alpha": self.alpha, "beta": self.beta, "lambda_": self.lambda_, "epsilon": self.epsilon}

    def compare(
        self,
        anchors: Float[Tensor, "anchors dim"],
        candidates: Float[Tensor, "candidates dim"],
        positive: Bool[Tensor, "anchors candidates"],
        negative: Bool[Tensor, "anchors candidates"],
    ) -> Float[Tensor, ""]:
        """Loss of anchors against candidates; see :meth:`CandidateLoss.compare`."""
        similarities = similarity_matrix(anchors, candidates)
        if self.epsilon is not None:
            positive, negative = informative_pairs(similarities, positive, negative, epsilon=self.epsilon)
        scales = {"alpha": self.alpha, "beta": self.beta, "lambda_": self.lambda_}
        terms = multi_similarity_terms(similarities, positive, negative, **scales)
        self.note(n_active=terms.count_nonzero())
        return terms.mean()

    @property
    def similarity_scale(self) -> float:
        """The scale of the negatives."""
        return self.beta

    def row_terms(self, negatives: Float[Tensor, "anchors candidates"], positives: Positives) -> tuple[Part, ...]:
        """Loss of some anchors against a memory; see :meth:`RowLoss.row_terms`."""
        scales = {"alpha": self.alpha, "beta": self.beta, "lambda_": self.lambda_}
        return (multi_similarity_rows(negatives, positives, **scales, epsilon=self.epsilon),)
