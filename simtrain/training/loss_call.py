"""Calling a loss with what a batch offers."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from simtrain.data.batches import Targets
from simtrain.errors import DataError
from simtrain.losses import PairwiseLoss, SimilarityLoss


def call_loss(loss: SimilarityLoss, embeddings: Float[Tensor, "batch dim"], targets: Targets) -> Float[Tensor, ""]:
    """Loss of embeddings for the targets of their batch.

    Args:
        loss: A pairwise loss (it takes ``pairs``, ``labels`` and ``subgroups``) or a group loss (``groups``).
        embeddings: Shape ``(batch, dim)``.
        targets: Targets of the batch.

    Returns:
        A scalar with its graph.

    Raises:
        DataError: The batch is of a kind that the loss does not take.

    Example:
        >>> import torch
        >>> from simtrain.losses import TripletLoss
        >>> call_loss(TripletLoss(margin=0.1), torch.eye(2), {"groups": torch.tensor([0, 1])})
        tensor(0.)
    """
    pairwise = isinstance(loss, PairwiseLoss)
    needed = ("pairs", "labels", "subgroups") if pairwise else ("groups",)
    if any(name not in targets for name in needed):
        raise DataError(
            f"{type(loss).__name__} takes batches of {'pairs' if pairwise else 'groups'}, but the batch has the "
            f"targets {sorted(targets)}; use another loss or another kind of samples"
        )
    value: Tensor = loss(embeddings, *(targets[name] for name in needed))
    return value
