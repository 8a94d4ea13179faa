"""The base class of losses over labelled pairs."""

from __future__ import annotations

from jaxtyping import Float, Int64, Integer
from torch import Tensor

from simtrain.losses.similarity_loss import SimilarityLoss


class PairwiseLoss(SimilarityLoss):
    """A loss over labelled pairs: ``loss(embeddings, pairs, labels, subgroups)``.

    In a batch of ``n`` pairs as the loaders make it, rows 0 to n-1 of the embeddings are the queries, rows n to 2n-1
    the documents, and pair i is ``(i, i + n)``. Any other ``pairs`` work too; two pairs may share a row.
    One that also implements :meth:`pair_memory_loss` can be trained with a cross-batch memory.

    Example:
        >>> class Pull(PairwiseLoss):
        ...     def forward(self, embeddings, pairs, labels, subgroups):
        ...         return (embeddings[pairs[:, 0]] - embeddings[pairs[:, 1]]).square().mean()
        >>> Pull()
        Pull()
    """

    target_names = ("pairs", "labels", "subgroups")

    def forward(
        self,
        embeddings: Float[Tensor, "rows dim"],
        pairs: Int64[Tensor, "n_pairs 2"],
        labels: Float[Tensor, " n_pairs"],
        subgroups: Integer[Tensor, " rows"],
    ) -> Float[Tensor, ""]:
        """Loss of a batch.

        Args:
            embeddings: Shape ``(rows, dim)``, floating point.
            pairs: Rows of the query and the document of each pair, shape ``(n_pairs, 2)``, int64.
            labels: Score of each pair, shape ``(n_pairs,)``, floating point: 1 for a match, 0 for a mismatch.
            subgroups: Subgroup of each row, shape ``(rows,)``, any integer dtype. 0 means that none was given.

        Returns:
            A scalar, float32 or wider.

        Raises:
            DataError: A shape or a dtype is wrong.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `forward`")
