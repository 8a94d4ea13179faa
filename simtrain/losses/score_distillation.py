"""Distillation from a teacher's scores, which stand in the pairs' labels."""

from __future__ import annotations

from typing import Any

from jaxtyping import Bool, Float, Int64, Integer
from torch import Tensor

from simtrain import registry
from simtrain.losses.batch_checks import check_pair_batch
from simtrain.losses.candidate_loss import zero_loss
from simtrain.losses.distances import Distance, pair_similarities
from simtrain.losses.log_sums import masked_logsumexp, masked_mean
from simtrain.losses.pairwise_loss import PairwiseLoss
from simtrain.losses.query_lists import same_query
from simtrain.losses.settings import check_positive


def margin_mse(
    similarities: Float[Tensor, " n_pairs"], scores: Float[Tensor, " n_pairs"], same: Bool[Tensor, "n_pairs n_pairs"]
) -> Float[Tensor, ""]:
    """Mean of ``((s_i - s_j) - (t_i - t_j))^2`` over two different pairs ``i, j`` of one query.

    Args:
        similarities: Those of the model, ``s``, shape ``(n_pairs,)``.
        scores: The teacher's, ``t``, shape ``(n_pairs,)``.
        same: Which pairs belong to one query, shape ``(n_pairs, n_pairs)``.

    Example:
        >>> import torch
        >>> margin_mse(torch.tensor([2.0, 1.0]), torch.tensor([9.0, 6.0]), torch.ones(2, 2, dtype=torch.bool))
        tensor(4.)
    """
    return masked_mean(gap_terms(similarities, scores), _others(same))


def gap_terms(
    similarities: Float[Tensor, " n_pairs"], scores: Float[Tensor, " n_pairs"]
) -> Float[Tensor, "n_pairs n_pairs"]:
    """``((s_i - s_j) - (t_i - t_j))^2`` of any two pairs."""
    gap = similarities - scores
    return (gap.unsqueeze(1) - gap).square()


def _others(same: Tensor) -> Tensor:
    return same.clone().fill_diagonal_(False)


def list_divergence(
    logits: Float[Tensor, "rows columns"], teacher: Float[Tensor, "rows columns"], mask: Bool[Tensor, "rows columns"]
) -> Float[Tensor, " rows"]:
    """``KL(softmax(teacher) || softmax(logits))`` of each row, over the columns of ``mask``.

    Args:
        logits: Those of the model, shape ``(rows, columns)``.
        teacher: The teacher's, shape ``(rows, columns)``.
        mask: What belongs to each row's list, shape ``(rows, columns)``.

    Returns:
        Shape ``(rows,)``; zero for an empty list.

    Example:
        >>> import torch
        >>> mask = torch.ones(1, 2, dtype=torch.bool)
        >>> list_divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([[99.0, 0.0]]), mask)  # log 2
        tensor([0.6931])
    """
    own = logits - masked_logsumexp(logits, mask).unsqueeze(1)
    wanted = teacher - masked_logsumexp(teacher, mask).unsqueeze(1)
    return (wanted.masked_fill(~mask, 0).exp() * (wanted - own)).masked_fill(~mask, 0).sum(dim=1)


@registry.losses.register_module()
class MarginMSELoss(PairwiseLoss):
    """The difference of two candidates' similarities to a query is to be that of the teacher's scores.

    The labels are the teacher's scores, of any scale. The candidates of a query are the pairs of one first row, or of
    one non-zero subgroup. With two of each query, a match and a mined mismatch, it is the paper's. ``n_active`` counts
    the (ordered) pairs of candidates with a loss other than zero.

    Args:
        distance: One of :class:`Distance`; similarities are cosines, dot products (the paper's) or negated distances.
        scale: Factor of the similarities, above zero, to bring cosines to the range of the scores.

    Raises:
        ConfigError: A setting is not one of the above.

    Reference:
        Hofstätter et al., "Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge Distillation",
        2020, https://arxiv.org/abs/2010.02666 (equation 8)

    Example:
        >>> import torch
        >>> embeddings, pairs = torch.tensor([[1.0], [2.0], [1.0]]), torch.tensor([[0, 1], [0, 2]])
        >>> MarginMSELoss()(embeddings, pairs, torch.tensor([9.0, 6.0]), torch.zeros(3, dtype=torch.long))
        tensor(4.)
    """

    def __init__(self, distance: str = Distance.DOT, scale: float | int = 1.0) -> None:
        super().__init__()
        self.distance = Distance.of(distance)
        self.scale = check_positive("MarginMSELoss", "scale", scale)

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {"distance": self.distance.value, "scale": self.scale}

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
        terms = gap_terms(similarities * self.scale, labels.to(similarities.dtype))
        others = _others(same_query(pairs, subgroups))
        self.note(n_active=terms.detach().masked_fill(~others, 0).count_nonzero())
        return masked_mean(terms, others)


@registry.losses.register_module()
class DistillKLDivLoss(PairwiseLoss):
    """Over a query's candidates, the model's similarities are to have the distribution of the teacher's scores.

    The labels are the teacher's scores. The candidates of a query are the pairs of one first row, or of one non-zero
    subgroup. Mean of ``KL(teacher || model)`` over the queries that have two candidates or more, of which
    ``n_active`` counts those with a divergence.

    Args:
        temperature: Divisor of the model's similarities, above zero.
        teacher_temperature: Divisor of the teacher's scores, above zero.
        distance: One of :class:`Distance`; similarities are cosines, dot products or negated distances.

    Raises:
        ConfigError: A setting is not one of the above.

    Reference:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, https://arxiv.org/abs/1503.02531;
        over candidates: Ren et al., "RocketQAv2", EMNLP 2021, https://arxiv.org/abs/2110.07367 (equation 4)

    Example:
        >>> import torch
        >>> embeddings, pairs = torch.tensor([[1.0], [1.0], [1.0]]), torch.tensor([[0, 1], [0, 2]])
        >>> DistillKLDivLoss()(embeddings, pairs, torch.tensor([99.0, 0.0]), torch.zeros(3, dtype=torch.long))  # log 2
        tensor(0.6931)
    """

    def __init__(
        self,
        temperature: float | int = 0.05,
        teacher_temperature: float | int = 1.0,
        distance: str = Distance.COSINE,
    ) -> None:
        super().__init__()
        self.temperature = check_positive("DistillKLDivLoss", "temperature", temperature)
        self.teacher_temperature = check_positive("DistillKLDivLoss", "teacher_temperature", teacher_temperature)
        self.distance = Distance.of(distance)

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {
            "temperature": self.temperature,
            "teacher_temperature": self.teacher_temperature,
            "distance": self.distance.value,
        }

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
        same = same_query(pairs, subgroups)
        sizes = same.sum(dim=1)
        # Each list is there once for each of its pairs.
        weights = (1 / sizes.to(similarities.dtype)).masked_fill(sizes < 2, 0)
        scores = labels.to(similarities.dtype) / self.teacher_temperature
        logits = (similarities / self.temperature).expand(len(pairs), -1)
        divergences = list_divergence(logits, scores.expand(len(pairs), -1), same)
        self.note(n_active=weights.masked_fill(divergences.detach() == 0, 0).sum())
        return (divergences * weights).sum() / weights.sum().clamp(min=1)
