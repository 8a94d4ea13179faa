"""The base class of losses over groups."""

from __future__ import annotations

from jaxtyping import Bool, Float, Integer
from torch import Tensor

from simtrain.errors import ConfigError
from simtrain.losses.similarity_loss import SimilarityLoss


class GroupLoss(SimilarityLoss):
    """A loss over items that are similar when they are of one group: ``loss(embeddings, groups)``.

    A subclass implements :meth:`forward`. One that also implements :meth:`memory_loss` can be trained with a
    cross-batch memory; see :class:`simtrain.losses.CandidateLoss`, which gives both from one formula.

    Example:
        >>> class Spread(GroupLoss):
        ...     def forward(self, embeddings, groups):
        ...         return embeddings.square().mean()
        >>> Spread().supports_memory
        False
    """

    @property
    def supports_memory(self) -> bool:
        """Whether :meth:`memory_loss` is there, that is, whether the loss works with a cross-batch memory."""
        return type(self).memory_loss is not GroupLoss.memory_loss

    def forward(self, embeddings: Float[Tensor, "batch dim"], groups: Integer[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Loss of a batch.

        Args:
            embeddings: Shape ``(batch, dim)``, floating point.
            groups: Group of each embedding, shape ``(batch,)``, any integer dtype.

        Returns:
            A scalar, float32 or wider.

        Raises:
            DataError: A shape or a dtype is wrong.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `forward`")

    def memory_loss(
        self,
        embeddings: Float[Tensor, "batch dim"],
        groups: Integer[Tensor, " batch"],
        memory_embeddings: Float[Tensor, "memory dim"],
        memory_groups: Integer[Tensor, " memory"],
        own: Bool[Tensor, "batch memory"] | None = None,
    ) -> Float[Tensor, ""]:
        """Loss of a batch against remembered embeddings: batch rows are anchors, memory rows the candidates.

        Args:
            embeddings: Shape ``(batch, dim)``, floating point.
            groups: Group of each embedding, shape ``(batch,)``.
            memory_embeddings: Shape ``(memory, dim)``. They get no gradient.
            memory_groups: Group of each memory row, shape ``(memory,)``.
            own: Where true, the memory row is the batch row's own item, seen earlier: neither its positive nor
                its negative. Shape ``(batch, memory)``; default: nowhere.

        Returns:
            A scalar, float32 or wider. Zero for an empty memory.

        Raises:
            ConfigError: This loss has no memory form.
            DataError: A shape or a dtype is wrong.

        Reference:
            Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020, https://arxiv.org/abs/1912.06798
        """
        raise ConfigError(
            f"{type(self).__name__} has no memory form, so it cannot be trained with a cross-batch memory (XBM); "
            f"use a loss whose supports_memory is True, such as TripletLoss or SupConLoss, or do without XBM"
        )
