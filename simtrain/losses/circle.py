"""The circle loss."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import relu, softplus

from simtrain import registry
from simtrain.losses.distances import similarity_matrix
from simtrain.losses.log_sums import masked_logsumexp, masked_mean
from simtrain.losses.row_loss import RowLoss
from simtrain.losses.row_terms import Part, Positives, slices
from simtrain.losses.settings import check_positive
from simtrain.losses.softmax_terms import listed_softmax, softmax_of


def circle_terms(
    similarities: Float[Tensor, "anchors candidates"],
    positive: Bool[Tensor, "anchors candidates"],
    negative: Bool[Tensor, "anchors candidates"],
    *,
    margin: float = 0.25,
    scale_factor: float = 256.0,
) -> Float[Tensor, " anchors"]:
    """Loss of each anchor: equation 6 of the paper, with its ``O_p = 1 + m, O_n = -m, D_p = 1 - m, D_n = m``.

    Args:
        similarities: Cosines, shape ``(anchors, candidates)``.
        positive: Shape ``(anchors, candidates)``.
        negative: Shape ``(anchors, candidates)``.
        margin: ``m`` of the paper.
        scale_factor: ``gamma`` of the paper.

    Returns:
        Shape ``(anchors,)``; zero for an anchor without positives or without negatives.

    Example:
        >>> import torch
        >>> s, mask = torch.tensor([[0.75, 0.25]]), torch.tensor([[True, False]])  # both on the decision boundary
        >>> circle_terms(s, mask, ~mask)  # log 2
        tensor([0.6931])
    """
    # The weights alpha are constants for the gradient: equation 10 has gamma * alpha and no more.
    fixed = similarities.detach()
    of_positives = -scale_factor * relu(1 + margin - fixed) * (similarities - (1 - margin))
    of_negatives = scale_factor * relu(fixed + margin) * (similarities - margin)
    return softplus(masked_logsumexp(of_positives, positive) + masked_logsumexp(of_negatives, negative))


def circle_rows(
    negatives: Float[Tensor, "anchors candidates"],
    positives: Positives,
    *,
    margin: float = 0.25,
    scale_factor: float = 256.0,
) -> Part:
    """As :func:`circle_terms`, over a block of cosines; counted are the anchors that have both.

    Args:
        negatives: Cosines, shape ``(anchors, candidates)``; ``-inf`` where a candidate is no negative. Written to.
        positives: The positives, in the order of the anchors.
        margin: ``m`` of the paper.
        scale_factor: ``gamma`` of the paper.

    Example:
        >>> one = Positives(torch.tensor([0]), torch.tensor([0]), torch.tensor([0.75]))
        >>> circle_rows(torch.tensor([[-torch.inf, 0.25]]), one).total  # log 2
        tensor(0.6931)
    """
    rows, columns, values = positives
    pull = scale_factor * relu(1 + margin - values)
    log_pull, shares = listed_softmax(rows, -pull * (values - (1 - margin)), len(negatives))
    log_sums = torch.empty_like(log_pull)
    for some in slices(negatives):
        block = negatives[some]
        is_none = block == -torch.inf
        push = relu(block + margin).mul_(scale_factor)
        logits = block.sub_(margin).mul_(push).masked_fill_(is_none, -torch.inf)
        log_push, weights = softmax_of(logits)
        log_sums[some] = log_push + log_pull[some]
        negatives[some] = weights.mul_(push).mul_(log_sums[some].sigmoid().unsqueeze(1))
    # Where one of both is missing, the log of its sum is minus infinity.
    losses, complete = softplus(log_sums), log_sums != -torch.inf
    slopes = -log_sums.sigmoid().index_select(0, rows) * shares * pull
    return Part(losses.sum(), complete.sum(), rows, columns, slopes, negatives, losses.count_nonzero())


@registry.losses.register_module()
class CircleLoss(RowLoss):
    """Positives' similarities are raised and negatives' lowered, each by how far it is from its optimum.

    Computed for each anchor over its positives and negatives, on cosine similarities, and averaged over the anchors
    that have both. ``n_active`` counts those with a loss other than zero.

    Args:
        margin: ``m`` of the paper, which relaxes both goals; zero or above. The paper has 0.25 for faces and people
            and 0.4 for fine-grained retrieval.
        scale_factor: ``gamma`` of the paper, above zero: 256 for faces, 128 for people, 80 for retrieval.

    Raises:
        ConfigError: A setting is not one of the above.

    Reference:
        Sun et al., "Circle Loss: A Unified Perspective of Pair Similarity Optimization", CVPR 2020,
        https://arxiv.org/abs/2002.10857

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> CircleLoss(margin=0.25, scale_factor=16)(embeddings, torch.tensor([0, 0, 1, 1]))  # log(1 + 2 / e**2)
        tensor(0.2395)
    """

    def __init__(self, margin: float | int = 0.25, scale_factor: float | int = 256.0) -> None:
        super().__init__()
        self.margin = check_positive("CircleLoss", "margin", margin, allow_zero=True)
        self.scale_factor = check_positive("CircleLoss", "scale_factor", scale_factor)

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {"margin": self.margin, "scale_factor": self.scale_factor}

    def compare(
        self,
        anchors: Float[Tensor, "anchors dim"],
        candidates: Float[Tensor, "candidates dim"],
        positive: Bool[Tensor, "anchors candidates"],
        negative: Bool[Tensor, "anchors candidates"],
    ) -> Float[Tensor, ""]:
        """Loss of anchors against candidates; see :meth:`CandidateLoss.compare`."""
        complete = positive.any(dim=1) & negative.any(dim=1)
        similarities = similarity_matrix(anchors, candidates)
        terms = circle_terms(similarities, positive, negative, margin=self.margin, scale_factor=self.scale_factor)
        self.note(n_active=terms.detach().masked_fill(~complete, 0).count_nonzero())
        return masked_mean(terms, complete)

    def row_terms(self, negatives: Float[Tensor, "anchors candidates"], positives: Positives) -> tuple[Part, ...]:
        """Loss of some anchors against a memory; see :meth:`RowLoss.row_terms`."""
        return (circle_rows(negatives, positives, margin=self.margin, scale_factor=self.scale_factor),)
