"""The base class of losses over groups."""

from __future__ import annotations

from jaxtyping import Float, Integer
from torch import Tensor

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

    target_names = ("groups",)

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
