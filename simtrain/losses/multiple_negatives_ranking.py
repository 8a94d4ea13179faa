"""The multiple negatives ranking loss."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, Integer
from torch import Tensor
from torch.nn.functional import softplus

from simtrain import registry
from simtrain.errors import ConfigError
from simtrain.losses.batch_checks import check_pair_batch
from simtrain.losses.candidate_loss import zero_loss
from simtrain.losses.distances import Distance, pair_distances, similarity_matrix
from simtrain.losses.memory_log_sums import memory_log_sums
from simtrain.losses.memory_rows import MemoryRows
from simtrain.losses.pair_relations import blocked_candidates
from simtrain.losses.pairwise_loss import PairwiseLoss
from simtrain.losses.settings import check_positive
from simtrain.losses.temperature import (
    GivenTemperature,
    LearntTemperature,
    checked_temperature,
    moving,
    temperature_config,
    temperature_now,
)

_SCALE = 20.0


def ranking_loss(
    embeddings: Float[Tensor, "rows dim"],
    own: Int64[Tensor, " n_pairs"],
    candidates: Int64[Tensor, " n_candidates"],
    labels: Float[Tensor, " n_pairs"],
    subgroups: Integer[Tensor, " rows"],
    *,
    scale: float = 20.0,
    distance: str = Distance.COSINE,
) -> Float[Tensor, ""]:
    """Cross entropy of each pair's partner among all candidates, weighted by the pairs' labels.

    Args:
        embeddings: Shape ``(rows, dim)``.
        own: Row of each pair's item on the side that searches, shape ``(n_pairs,)``.
        candidates: Rows to search among. The first ``n_pairs`` are the pairs' partners; any further ones (mined
            hard negatives, say) are negatives for all pairs.
        labels: Weight of each pair, shape ``(n_pairs,)``. A pair of 0 (or less) is a known mismatch: its partner is
            a candidate, but it is not searched for.
        subgroups: Shape ``(rows,)``; see :func:`blocked_candidates`.
        scale: Factor of the similarities.
        distance: One of :class:`Distance`; similarities are cosines, dot products or negated distances.

    Returns:
        A scalar; zero without any pair of a label above 0.

    Example:
        >>> x, own, no_subgroups = torch.eye(3), torch.tensor([0]), torch.zeros(3, dtype=torch.long)
        >>> ranking_loss(x, own, torch.tensor([1, 2]), torch.ones(1), no_subgroups)  # log 2
        tensor(0.6931)
    """
    logits = similarity_matrix(embeddings[own], embeddings[candidates], distance).mul_(scale)
    return masked_cross_entropy(logits, blocked_candidates(own, candidates, labels, subgroups), labels)[0]


def masked_cross_entropy(
    logits: Float[Tensor, "n_pairs n_candidates"],
    blocked: Bool[Tensor, "n_pairs n_candidates"],
    labels: Float[Tensor, " n_pairs"],
) -> tuple[Float[Tensor, ""], Int64[Tensor, ""]]:
    """Cross entropy of the diagonal among the candidates that are not blocked, weighted by the labels above 0.

    Returns:
        ``(loss, n_active)``: the weighted mean, and how many rows have a loss other than zero.
    """
    return weighted_mean(logits.masked_fill(blocked, -torch.inf).logsumexp(dim=1) - logits.diagonal(), labels)


def weighted_mean(
    rows: Float[Tensor, " n_pairs"], labels: Float[Tensor, " n_pairs"]
) -> tuple[Float[Tensor, ""], Int64[Tensor, ""]]:
    """Mean of the rows, weighted by the labels above 0; and how many of them have a loss other than zero.

    Example:
        >>> weighted_mean(torch.tensor([3.0, 0.0, 5.0]), torch.tensor([1.0, 0.5, 0.0]))
        (tensor(2.), tensor(1))
    """
    weights = labels.to(rows.dtype).clamp(min=0)
    total, weighted = weights.sum(), rows * weights
    return weighted.sum() / total.where(total > 0, torch.ones_like(total)), weighted.count_nonzero()


@registry.losses.register_module()
class MultipleNegativesRankingLoss(PairwiseLoss):
    """Each query is to find its document among all documents of the batch (InfoNCE with in-batch negatives).

    Never counted as a query's negative: a document that any pair matches with the same row, the document of a pair
    of the same non-zero subgroup, the query's own row, and a row a second time. A pair labelled 0 is a known
    mismatch: its document is a negative for the other queries, and for its own query whatever the subgroup, but its
    query is not asked. Labels above 0 weigh the queries (the mean is weighted). A query without any negative has a
    loss of zero; ``n_active`` counts those with another (with ``symmetric``, in both directions).

    Args:
        scale: Factor of the similarities (the inverse of a temperature), above zero.
        symmetric: Also ask each document for its query, and take the mean of both directions.
        same_side: Also take the other queries as negatives of a query (and the other documents of a document, where
            ``symmetric``), by the same rules. With ``symmetric`` it is the NT-Xent loss of SimCLR over the pairs.
        distance: One of :class:`Distance`; similarities are cosines, dot products or negated distances.
        temperature: In place of ``scale``: a divisor of the similarities, also a learnt one (``symmetric`` with it is
            CLIP's loss) or a scheduled one; see :class:`LearntTemperature` and :class:`ScheduledTemperature`.

    Raises:
        ConfigError: A setting is not one of the above, or ``scale`` is given beside a temperature.

    Reference:
        Henderson et al., "Efficient Natural Language Response Suggestion for Smart Reply", 2017,
        https://arxiv.org/abs/1705.00652 (section 4.4). ``same_side``: Chen et al., "A Simple Framework for
        Contrastive Learning of Visual Representations", 2020; Li et al., "Towards General Text Embeddings with
        Multi-stage Contrastive Learning", 2023.

    Example:
        >>> loss = MultipleNegativesRankingLoss(scale=1.0)
        >>> embeddings = torch.eye(2).repeat(2, 1)
        >>> pairs, labels = torch.tensor([[0, 2], [1, 3]]), torch.ones(2)
        >>> loss(embeddings, pairs, labels, torch.zeros(4, dtype=torch.long))  # log(1 + 1 / e)
        tensor(0.3133)
    """

    def __init__(
        self,
        scale: float | int = _SCALE,
        symmetric: bool = False,
        distance: str = Distance.COSINE,
        same_side: bool = False,
        temperature: GivenTemperature | None = None,
    ) -> None:
        super().__init__()
        if temperature is not None and scale != _SCALE:
            raise ConfigError(
                f"MultipleNegativesRankingLoss: the temperature stands in place of scale, got scale={scale!r} beside it"
            )
        owner = "MultipleNegativesRankingLoss"
        self.temperature = None if temperature is None else checked_temperature(owner, temperature)
        self.same_side = bool(same_side)
        self.scale = check_positive("MultipleNegativesRankingLoss", "scale", scale)
        self.symmetric = bool(symmetric)
        self.distance = Distance.of(distance)

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {
            "scale": self.scale,
            "symmetric": self.symmetric,
            "distance": self.distance.value,
            "same_side": self.same_side,
            "temperature": None if self.temperature is None else temperature_config(self.temperature),
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
        queries, documents = pairs.unbind(dim=1)
        factor = self._factor()
        if self.symmetric and not self.same_side:
            return self._both_ways(embeddings, queries, documents, labels, subgroups, factor)
        loss, n_active = self._search(embeddings, queries, documents, labels, subgroups, factor)
        if self.symmetric:
            back, n_back = self._search(embeddings, documents, queries, labels, subgroups, factor)
            loss, n_active = (loss + back) / 2, n_active + n_back
        self._note(n_active, factor)
        return loss

    def _both_ways(
        self, embeddings: Tensor, a: Tensor, b: Tensor, labels: Tensor, subgroups: Tensor, factor: float | Tensor
    ) -> Tensor:
        # One similarity matrix serves both directions.
        logits = similarity_matrix(embeddings[a], embeddings[b], self.distance) * factor
        blocked, blocked_back = blocked_candidates(a, b, labels, subgroups), blocked_candidates(b, a, labels, subgroups)
        forth, n_forth = masked_cross_entropy(logits, blocked, labels)
        back, n_back = masked_cross_entropy(logits.T, blocked_back, labels)
        self._note(n_forth + n_back, factor)
        return (forth + back) / 2

    def _search(
        self, embeddings: Tensor, own: Tensor, others: Tensor, labels: Tensor, subgroups: Tensor, factor: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        candidates = torch.cat([others, own]) if self.same_side else others
        blocked = blocked_candidates(own, candidates, labels, subgroups)
        logits = similarity_matrix(embeddings[own], embeddings[candidates], self.distance) * factor
        return masked_cross_entropy(logits, blocked, labels)

    def _factor(self) -> float | Tensor:
        return self.scale if self.temperature is None else 1 / temperature_now(self.temperature)

    def _note(self, n_active: Tensor, factor: float | Tensor) -> None:
        temperature = {} if self.temperature is None else moving(self.temperature, 1 / factor)
        self.note(n_active=n_active, **temperature)

    def check_memory(self) -> None:
        """Refuse a learnt temperature of distances with a memory; see :meth:`SimilarityLoss.check_memory`."""
        learnt = isinstance(self.temperature, LearntTemperature) and self.temperature.log_temperature.requires_grad
        if learnt and self.distance not in (Distance.COSINE, Distance.DOT):
            raise ConfigError(
                f"MultipleNegativesRankingLoss: a learnt temperature works with a cross-batch memory for "
                f"distance='cosine' or 'dot', not {self.distance.value!r}; give it a temperature that is a number, or "
                f"leave out xbm"
            )
        super().check_memory()

    def remembered_rows(self, pairs: Int64[Tensor, "n_pairs 2"]) -> Int64[Tensor, " n"]:
        """Documents, and queries too where something is compared with queries."""
        return pairs.T.flatten() if self.symmetric or self.same_side else pairs[:, 1]

    def pair_memory_loss(
        self,
        embeddings: Float[Tensor, "rows dim"],
        pairs: Int64[Tensor, "n_pairs 2"],
        labels: Float[Tensor, " n_pairs"],
        subgroups: Integer[Tensor, " rows"],
        items: Integer[Tensor, " rows"],
        memory: MemoryRows,
    ) -> Float[Tensor, ""]:
        """Each query is to find its document among the remembered ones; see :meth:`PairwiseLoss.pair_memory_loss`.

        Never counted as negatives: entries of the query's own item and of its document's, and those of the same
        non-zero subgroup.
        """
        check_pair_batch(embeddings, pairs, labels, subgroups)
        if len(pairs) == 0 or len(memory) == 0:
            self.note(n_active=0)
            return zero_loss(embeddings)
        queries, documents = pairs.unbind(dim=1)
        near = -pair_distances(embeddings[queries], embeddings[documents], self.distance)
        if self.distance is Distance.COSINE:
            near = near + 1
        factor = self._factor()
        near = near * factor
        given = (near, labels, subgroups, items, memory)
        loss, n_active = self._remember(embeddings, queries, documents, *given, 1, factor)
        if self.symmetric:
            back, n_back = self._remember(embeddings, documents, queries, *given, 0, factor)
            loss, n_active = (loss + back) / 2, n_active + n_back
        self._note(n_active, factor)
        return loss

    def _remember(
        self,
        embeddings: Tensor,
        own: Tensor,
        others: Tensor,
        near: Tensor,
        labels: Tensor,
        subgroups: Tensor,
        items: Tensor,
        memory: MemoryRows,
        side: int,
        factor: float | Tensor,
    ) -> tuple[Tensor, Tensor]:
        # Subgroup 0 says that none was given: it equals no other.
        grouped = subgroups[own].long()
        grouped = grouped.masked_fill(grouped == 0, torch.iinfo(torch.long).min)
        excluded = [(items[own], memory.items), (items[others], memory.items), (grouped, memory.groups)]
        columns = None if self.same_side or memory.sides is None else memory.sides == side
        far = memory_log_sums(embeddings[own], memory, excluded, distance=self.distance, scale=factor, columns=columns)
        return weighted_mean(softplus(far - near), labels)
