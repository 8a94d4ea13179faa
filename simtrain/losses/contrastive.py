"""The contrastive loss."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64, Integer
from torch import Tensor
from torch.nn.functional import relu

from simtrain import registry
from simtrain.errors import ConfigError
from simtrain.losses.batch_checks import check_pair_batch
from simtrain.losses.candidate_loss import zero_loss
from simtrain.losses.distances import Distance, distance_matrix, pair_distances
from simtrain.losses.memory_blocks import against_memory
from simtrain.losses.memory_rows import MemoryRows
from simtrain.losses.mining import nearest_index
from simtrain.losses.pairwise_loss import PairwiseLoss
from simtrain.losses.row_terms import Part, Positives, noted_terms, row_maximum
from simtrain.losses.settings import check_positive


def contrastive_terms(
    embeddings: Float[Tensor, "rows dim"],
    pairs: Int64[Tensor, "n_pairs 2"],
    labels: Float[Tensor, " n_pairs"],
    *,
    margin: float = 0.5,
    distance: str = Distance.COSINE,
) -> Float[Tensor, " n_pairs"]:
    """Loss of each labelled pair: ``(y d^2 + (1 - y) relu(margin - d)^2) / 2``.

    Args:
        embeddings: Shape ``(rows, dim)``.
        pairs: Shape ``(n_pairs, 2)``.
        labels: ``y``, 1 for a match and 0 for a mismatch, or between; shape ``(n_pairs,)``.
        margin: Beyond which distance mismatches cost nothing.
        distance: One of :class:`Distance`.

    Returns:
        Shape ``(n_pairs,)``.

    Example:
        >>> x, pairs = torch.tensor([[0.0], [0.2]]), torch.tensor([[0, 1], [0, 1]])
        >>> contrastive_terms(x, pairs, torch.tensor([1.0, 0.0]), distance="euclidean")
        tensor([0.0200, 0.0450])
    """
    distances = pair_distances(embeddings[pairs[:, 0]], embeddings[pairs[:, 1]], distance)
    return (labels * distances.square() + (1 - labels) * relu(margin - distances).square()) / 2


def in_batch_terms(
    embeddings: Float[Tensor, "rows dim"],
    subgroups: Integer[Tensor, " rows"],
    *,
    margin: float = 0.5,
    distance: str = Distance.COSINE,
) -> Float[Tensor, " rows"]:
    """Loss of each row against the nearest row of another subgroup: ``relu(margin - d)^2``.

    Args:
        embeddings: Shape ``(rows, dim)``, at least one row.
        subgroups: Shape ``(rows,)``.
        margin: Beyond which distance it costs nothing.
        distance: One of :class:`Distance`.

    Returns:
        Shape ``(rows,)``; zero for a row without another subgroup.

    Example:
        >>> in_batch_terms(torch.tensor([[0.0], [0.2], [0.4]]), torch.tensor([1, 1, 2]), distance="euclidean")
        tensor([0.0100, 0.0900, 0.0900])
    """
    with torch.no_grad():
        other = subgroups.unsqueeze(1) != subgroups
        nearest, found = nearest_index(distance_matrix(embeddings, embeddings, distance), other)
    distances = pair_distances(embeddings, embeddings.index_select(0, nearest), distance)
    return relu(margin - distances).square().masked_fill(~found, 0)


@registry.losses.register_module()
class ContrastiveLoss(PairwiseLoss):
    """Matching pairs are pulled together, mismatches pushed apart up to a margin.

    A pair with distance ``d`` and label ``y`` costs ``(y d^2 + (1 - y) relu(margin - d)^2) / 2``. Where subgroups
    differ within the batch, the items of other subgroups are mismatches too: each of the pair's two items adds
    ``relu(margin - d)^2`` for its nearest item of another subgroup. With one subgroup for all (the default 0, say),
    the labelled pairs are all there is.

    Args:
        margin: Beyond which distance mismatches cost nothing, above zero.
        distance: One of :class:`Distance`, except ``"dot"``: it is not a distance that could be squared.
        size_average: Mean over the pairs (the default), or their sum.

    Raises:
        ConfigError: A setting is not one of the above.

    Reference:
        Hadsell, Chopra, LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006 (equation 4).

    Example:
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
        >>> pairs, labels = torch.tensor([[0, 2], [1, 3]]), torch.tensor([1.0, 0.0])
        >>> ContrastiveLoss()(embeddings, pairs, labels, torch.zeros(4, dtype=torch.long))  # (1/2 + 1/8) / 2
        tensor(0.3125)
    """

    def __init__(self, margin: float | int = 0.5, distance: str = Distance.COSINE, size_average: bool = True) -> None:
        super().__init__()
        self.margin = check_positive("ContrastiveLoss", "margin", margin)
        self.distance = Distance.of(distance)
        if self.distance is Distance.DOT:
            raise ConfigError(
                "ContrastiveLoss squares distances, and 'dot' may be below zero; "
                "use distance='cosine', 'euclidean', 'squared_euclidean' or 'manhattan'"
            )
        self.size_average = bool(size_average)

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {"margin": self.margin, "distance": self.distance.value, "size_average": self.size_average}

    def forward(
        self,
        embeddings: Float[Tensor, "rows dim"],
        pairs: Int64[Tensor, "n_pairs 2"],
        labels: Float[Tensor, " n_pairs"],
        subgroups: Integer[Tensor, " rows"],
    ) -> Float[Tensor, ""]:
        """Loss of a batch; see :meth:`PairwiseLoss.forward`."""
        check_pair_batch(embeddings, pairs, labels, subgroups)
        terms = contrastive_terms(embeddings, pairs, labels, margin=self.margin, distance=self.distance)
        if len(pairs) == 0:
            self.note(n_active=0)
            return terms.sum()
        in_batch = in_batch_terms(embeddings, subgroups, margin=self.margin, distance=self.distance)[pairs]
        self.note(n_active=(terms > 0).sum() + (in_batch > 0).sum())
        total = terms.sum() + in_batch.sum()
        return total / len(pairs) if self.size_average else total

    def pair_memory_loss(
        self,
        embeddings: Float[Tensor, "rows dim"],
        pairs: Int64[Tensor, "n_pairs 2"],
        labels: Float[Tensor, " n_pairs"],
        subgroups: Integer[Tensor, " rows"],
        items: Integer[Tensor, " rows"],
        memory: MemoryRows,
    ) -> Float[Tensor, ""]:
        """``relu(margin - d)^2`` of each item for its nearest remembered item of another subgroup.

        See :meth:`PairwiseLoss.pair_memory_loss`. With one subgroup for all, there is nothing to compare with.
        """
        check_pair_batch(embeddings, pairs, labels, subgroups)
        if len(pairs) == 0 or len(memory) == 0:
            self.note(n_active=0)
            return zero_loss(embeddings)
        rows = pairs.flatten()
        searched = (embeddings[rows], subgroups[rows], items[rows], memory, noted_terms(self._nearest_terms, self.note))
        mean = against_memory(*searched, distance=self.distance)
        return mean * 2 if self.size_average else mean * len(rows)

    def _nearest_terms(self, negatives: Tensor, positives: Positives) -> tuple[Part, ...]:
        similarity, column = row_maximum(negatives)
        nearest = 1.0 if self.distance is Distance.COSINE else 0.0  # the similarity at distance 0
        shortage = relu(self.margin - nearest + similarity)
        rows = torch.arange(len(column), device=column.device)
        count = torch.full_like(rows, len(rows))[0]
        active = shortage.count_nonzero()
        return (Part(shortage.square().sum(), count, rows, column, 2 * shortage, active=active),)
