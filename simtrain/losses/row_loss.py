"""Group losses whose anchors do not depend on each other: against a memory they go block by block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from simtrain.errors import ConfigError
from simtrain.losses.batch_blocks import picked_pairs, within_batch, within_products
from simtrain.losses.batch_checks import check_group_batch, check_memory
from simtrain.losses.candidate_loss import CandidateLoss, zero_loss
from simtrain.losses.distances import Distance, similarity_matrix
from simtrain.losses.equal_pairs import same_label_pairs
from simtrain.losses.memory_blocks import against_memory
from simtrain.losses.memory_rows import MemoryRows
from simtrain.losses.row_terms import Part, Positives, RowTerms, mask_places, noted_terms


class RowLoss(CandidateLoss):
    """A candidate loss that says its value and its slopes, block by block.

    A subclass implements :meth:`row_terms`, which gets the similarities of some anchors to all candidates. Batch,
    memory and :meth:`compare` then come from it, in the same memory as the similarities themselves. Positives are
    listed: on a GPU, their number is waited for.

    Attributes:
        miner: Chooses what the loss looks at in a batch, for losses that take one.
        distance: One of :class:`Distance`: similarities are cosines, dot products or negated distances.
    """

    distance: Distance = Distance.COSINE
    miner: nn.Module | None

    def __init__(self) -> None:
        super().__init__()
        # Not of the class: that would hide a module of the same name.
        self.miner = None

    @property
    def supports_memory(self) -> bool:
        """Whether the loss works with a cross-batch memory: a miner looks at the batch alone."""
        return self.miner is None

    def forward(self, embeddings: Float[Tensor, "batch dim"], groups: Integer[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Loss of a batch; see :meth:`GroupLoss.forward`."""
        check_group_batch(embeddings, groups)
        if len(embeddings) > 0 and self.miner is None and type(self).compare is RowLoss.compare:
            return self._within_batch(embeddings, groups)
        if self.miner is None or len(embeddings) == 0:
            return super().forward(embeddings, groups)
        wide = embeddings.detach().to(torch.promote_types(embeddings.dtype, torch.float32))
        return self.mined_loss(embeddings, self.miner(wide, groups))

    def check_memory(self) -> None:
        """Refuse a miner with a cross-batch memory; see :meth:`SimilarityLoss.check_memory`."""
        if self.miner is not None:
            raise ConfigError(
                f"{type(self).__name__} with a miner has no memory form, as the miner looks at the batch alone; "
                f"leave out xbm or the miner"
            )
        super().check_memory()

    def mined_loss(self, embeddings: Float[Tensor, "batch dim"], indices: Any) -> Float[Tensor, ""]:
        """Loss of the triplets or pairs that a miner has chosen.

        Args:
            embeddings: Shape ``(batch, dim)``.
            indices: Rows of triplets or pairs; see :mod:`simtrain.losses.miners`.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no miner")

    @property
    def picks_pairs(self) -> bool:
        """Whether :meth:`row_terms` has slopes for a few pairs of an anchor only."""
        return False

    @property
    def similarity_scale(self) -> Tensor | float:
        """Factor of the similarities that :meth:`row_terms` is given; a tensor may be learnt."""
        return 1.0

    def row_terms(self, negatives: Float[Tensor, "anchors candidates"], positives: Positives) -> Sequence[Part]:
        """The loss of some anchors, as parts of which each is ``total / count``.

        Args:
            negatives: Similarity of each anchor to each candidate; ``-inf`` where that is no negative. It may be
                written to and given back as the slope.
            positives: The positives, in the order of the anchors.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `row_terms`")

    def compare(
        self,
        anchors: Float[Tensor, "anchors dim"],
        candidates: Float[Tensor, "candidates dim"],
        positive: Bool[Tensor, "anchors candidates"],
        negative: Bool[Tensor, "anchors candidates"],
    ) -> Float[Tensor, ""]:
        """Loss of anchors against candidates; see :meth:`CandidateLoss.compare`."""
        similarities = similarity_matrix(anchors, candidates, self.distance) * self.similarity_scale
        return within_batch(similarities, mask_places(positive), ~(positive | negative), self._noted_terms())

    def memory_loss(
        self,
        embeddings: Float[Tensor, "batch dim"],
        groups: Integer[Tensor, " batch"],
        memory_embeddings: Float[Tensor, "memory dim"],
        memory_groups: Integer[Tensor, " memory"],
        own: Bool[Tensor, "batch memory"] | None = None,
    ) -> Float[Tensor, ""]:
        """Loss of a batch against a memory; see :meth:`SimilarityLoss.memory_loss`."""
        check_group_batch(embeddings, groups)
        check_memory(embeddings, memory_embeddings, memory_groups, own)
        memory = MemoryRows(memory_embeddings, memory_groups, torch.zeros_like(memory_groups))
        return self._search(embeddings, groups, None, memory, own)

    def memory_rows_loss(
        self,
        embeddings: Float[Tensor, "batch dim"],
        groups: Integer[Tensor, " batch"],
        items: Integer[Tensor, " batch"],
        memory: MemoryRows,
    ) -> Float[Tensor, ""]:
        """As :meth:`memory_loss`; an item's own entries are known by its number.

        Args:
            embeddings: Shape ``(batch, dim)``, floating point.
            groups: Group of each embedding, shape ``(batch,)``.
            items: Item of each embedding, shape ``(batch,)``.
            memory: The remembered rows.
        """
        check_group_batch(embeddings, groups)
        check_memory(embeddings, memory.embeddings, memory.groups, None)
        return self._search(embeddings, groups, items, memory, None)

    def _within_batch(self, embeddings: Tensor, groups: Tensor) -> Tensor:
        positive, terms = same_label_pairs(groups), self._noted_terms()
        if self.distance in (Distance.COSINE, Distance.DOT):
            return within_products(embeddings, positive, terms, self.distance, self.similarity_scale)
        if self.picks_pairs:
            return picked_pairs(embeddings, positive, terms, self.distance)
        similarities = similarity_matrix(embeddings, embeddings, self.distance) * self.similarity_scale
        return within_batch(similarities, positive, None, terms)

    def _search(
        self, embeddings: Tensor, groups: Tensor, items: Tensor | None, memory: MemoryRows, own: Tensor | None
    ) -> Tensor:
        if len(embeddings) == 0 or len(memory) == 0:
            self.note(n_active=0)
            return zero_loss(embeddings)
        return against_memory(
            embeddings,
            groups,
            items,
            memory,
            self._noted_terms(),
            distance=self.distance,
            scale=self.similarity_scale,
            own=own,
        )

    def _noted_terms(self) -> RowTerms:
        return noted_terms(self.row_terms, self.note)
