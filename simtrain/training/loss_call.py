"""Calling a loss with what a batch offers."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from simtrain.data.batches import Targets
from simtrain.errors import DataError
from simtrain.losses import SimilarityLoss


def call_loss(loss: SimilarityLoss, embeddings: Float[Tensor, "batch dim"], targets: Targets) -> Float[Tensor, ""]:
    """Loss of embeddings for the targets of their batch.

    Args:
        loss: A loss, which says what it takes: a pairwise one ``pairs``, ``labels`` and ``subgroups``, a group one
            ``groups``.
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
    try:
        given = [targets[name] for name in loss.target_names]
    except KeyError:
        raise DataError(
            f"{type(loss).__name__} takes {_kind(loss)}, but the batch has the targets {sorted(targets)}; "
            f"use another loss or another kind of samples"
        ) from None
    value: Tensor = loss(embeddings, *given)
    return value


def _kind(loss: SimilarityLoss) -> str:
    names = set(loss.target_names)
    if names == {"pairs", "labels", "subgroups"}:
        return "batches of pairs"
    return "batches of groups" if names == {"groups"} else f"batches with the targets {sorted(names)}"
