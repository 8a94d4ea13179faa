"""Group losses that compare anchors with candidates, within a batch or against a memory."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from simtrain.losses.batch_checks import check_group_batch, check_memory
from simtrain.losses.group_loss import GroupLoss
from simtrain.losses.group_masks import batch_masks, memory_masks


class CandidateLoss(GroupLoss):
    """A group loss stated once, over anchors, candidates and masks of positives and negatives.

    A subclass implements :meth:`compare`. Within a batch, anchors and candidates are the same embeddings; with a
    memory, the candidates are the remembered ones.

    Example:
        >>> class MeanPositive(CandidateLoss):
        ...     def compare(self, anchors, candidates, positive, negative):
        ...         return torch.cdist(anchors, candidates)[positive].mean()
        >>> loss = MeanPositive()
        >>> loss(torch.tensor([[0.0], [3.0]]), torch.tensor([5, 5])), loss.supports_memory
        (tensor(3.), True)
    """

    def compare(
        self,
        anchors: Float[Tensor, "anchors dim"],
        candidates: Float[Tensor, "candidates dim"],
        positive: Bool[Tensor, "anchors candidates"],
        negative: Bool[Tensor, "anchors candidates"],
    ) -> Float[Tensor, ""]:
        """Loss of anchors against candidates.

        Args:
            anchors: Shape ``(anchors, dim)``, at least one row.
            candidates: Shape ``(candidates, dim)``, at least one row.
            positive: True where a candidate matches an anchor, shape ``(anchors, candidates)``.
            negative: True where it does not. A candidate that is neither takes no part.

        Returns:
            A scalar. Zero, with zero gradients, where no anchor has what the formula needs.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `compare`")

    def forward(self, embeddings: Float[Tensor, "batch dim"], groups: Integer[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Loss of a batch; see :meth:`GroupLoss.forward`."""
        check_group_batch(embeddings, groups)
        if len(embeddings) == 0:
            self.note(n_active=0)
            return zero_loss(embeddings)
        return self.compare(embeddings, embeddings, *batch_masks(groups))

    def memory_loss(
        self,
        embeddings: Float[Tensor, "batch dim"],
        groups: Integer[Tensor, " batch"],
        memory_embeddings: Float[Tensor, "memory dim"],
        memory_groups: Integer[Tensor, " memory"],
        own: Bool[Tensor, "batch memory"] | None = None,
    ) -> Float[Tensor, ""]:
        """Loss of a batch against a memory; see :meth:`GroupLoss.memory_loss`."""
        check_group_batch(embeddings, groups)
        check_memory(embeddings, memory_embeddings, memory_groups, own)
        if len(embeddings) == 0 or len(memory_embeddings) == 0:
            self.note(n_active=0)
            return zero_loss(embeddings)
        return self.compare(embeddings, memory_embeddings.detach(), *memory_masks(groups, memory_groups, own))


def zero_loss(embeddings: Float[Tensor, "rows dim"]) -> Float[Tensor, ""]:
    """A zero that backpropagates zeros into ``embeddings``.

    Example:
        >>> zero_loss(torch.tensor([[float("inf")]]))
        tensor(0.)
    """
    # The sum of no rows, not of all rows times zero: that would be NaN as soon as one entry is infinite.
    return embeddings[:0].sum(dtype=torch.promote_types(embeddings.dtype, torch.float32))
