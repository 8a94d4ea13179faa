"""Embedding many items in batches, at the encoders' own speed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from simtrain.encoders import ItemError
from simtrain.models.progress import track

EmbedBatch = Callable[[Sequence[Any]], Tensor]


def embed_items(
    items: Sequence[Any],
    embed: EmbedBatch,
    lengths: Sequence[int],
    dim: int,
    batch_size: int,
    device: torch.device | None = None,
    show_progress: bool | None = None,
    culprit: Callable[[Any], str] | None = None,
) -> Float[Tensor, "items dim"]:
    """Embed ``items`` batch by batch, long ones first, so that batches need little padding.

    Args:
        items: Raw items.
        embed: From a batch of items to their embeddings, shape ``(batch, dim)``.
        lengths: Of each item, in any unit.
        dim: Number of dimensions that ``embed`` gives.
        batch_size: Items a batch.
        device: Where the result is to be. Default: where ``embed`` puts it.
        show_progress: See :func:`simtrain.models.progress.track`.
        culprit: From an item whose embedding is not finite to the part of the model that made it so, for the message.

    Returns:
        Embeddings in the order of ``items``, shape ``(items, dim)``; they may take part in training.

    Raises:
        DataError: An item cannot be encoded, or its embedding is not finite; the message gives its position.
    """
    # Long ones first: a batch that does not fit into memory fails at once, not at the end.
    order = sorted(range(len(items)), key=lambda i: -lengths[i])
    starts = range(0, len(order), batch_size)
    embeddings: Tensor | None = None
    for start in track(starts, len(order), "Encoding", show_progress, size=batch_size):
        positions = order[start : start + batch_size]
        with torch.inference_mode():
            batch = _embedded(embed, [items[i] for i in positions], positions)
        if embeddings is None:
            embeddings = torch.empty(len(items), batch.shape[1], dtype=batch.dtype, device=device or batch.device)
        embeddings[torch.tensor(positions, device=embeddings.device)] = batch.to(embeddings.device)
    if embeddings is None:
        return torch.empty(0, dim, device=device)
    check_finite(embeddings, None if culprit is None else lambda position: culprit(items[position]))
    return embeddings


def check_finite(embeddings: Float[Tensor, "items dim"], culprit: Callable[[int], str] | None = None) -> None:
    """Raise for NaN and infinity; ``culprit`` names what made the embedding at a position so.

    Raises:
        DataError: An embedding holds one; the message gives the first such item.

    Example:
        >>> check_finite(torch.tensor([[1.0], [float("nan")]]))
        Traceback (most recent call last):
        ...
        simtrain.encoders.item_error.ItemError: item 1 has an embedding with NaN or infinite values...
    """
    finite = torch.isfinite(embeddings).all(dim=1)
    if not bool(finite.all()):
        first = int((~finite).nonzero()[0])
        source = "" if culprit is None else f" from {culprit(first)}"
        raise ItemError(
            first,
            f"has an embedding with NaN or infinite values{source} ({int((~finite).sum())} of {len(finite)} items do); "
            f"check the item, and the weights after an unstable training",
        )


def cosine_matrix(a: Float[Tensor, "n dim"], b: Float[Tensor, "m dim"]) -> Float[Tensor, "n m"]:
    """Cosine similarity of each row of ``a`` with each of ``b``, float32 or finer; 0 for a zero vector.

    Example:
        >>> cosine_matrix(torch.eye(2), torch.tensor([[2.0, 0.0]]))
        tensor([[1.],
                [0.]])
    """
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    return functional.normalize(a.to(dtype), dim=1) @ functional.normalize(b.to(dtype), dim=1).T


def _embedded(embed: EmbedBatch, batch: list[Any], positions: list[int]) -> Tensor:
    try:
        return embed(batch)
    except ItemError as error:
        # The encoder counted within its batch; the user counts in what he gave.
        raise ItemError(positions[error.position], error.reason) from error
