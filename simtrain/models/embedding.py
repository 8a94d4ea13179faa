"""From raw items through a whole model to their embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from simtrain.data.transfer import move_to
from simtrain.encoders import SwitchEncoder
from simtrain.errors import DataError
from simtrain.models.encoding import embed_items
from simtrain.models.encoding_options import EncodingOptions
from simtrain.models.parallel_encoding import embed_in_processes
from simtrain.models.placement import device_of


def embed_model_items(
    model: Any, items: Sequence[Any], side: int | None, options: EncodingOptions
) -> Float[Tensor, "items dim"]:
    """Embed raw items with a :class:`~simtrain.SimilarityModel` in eval mode, in this process or in several.

    Args:
        model: The model.
        items: Raw items.
        side: Code of their side (:mod:`simtrain.data.sides`), or None.
        options: See :meth:`SimilarityModel.encode`; ``normalize`` is left to the caller.

    Raises:
        DataError: An item cannot be encoded or its embedding is not finite; the message says which.
        ConfigError: Several processes are asked for, and the model is not on the CPU.
    """
    lengths = [_length(model, item) for item in items]
    if options.processes > 1 and len(items) > 1:
        return embed_in_processes(embed_model_items, model, items, lengths, side, options)
    # Made once: encoders build their collate functions anew each time they are asked.
    device, collate = device_of(model), model.get_collate()

    def features(some: Sequence[Any]) -> dict[str, Any]:
        collated: dict[str, Any] = move_to(collate.features(some, None if side is None else [side] * len(some)), device)
        return collated

    with options.autocast_on(device):
        embeddings = embed_items(
            items,
            lambda some: _embedded(model, features(some), len(some)),
            lengths=lengths,
            dim=model.embedding_size,
            batch_size=options.batch_size,
            device=torch.device("cpu") if options.to_numpy else device,
            show_progress=options.show_progress,
            culprit=lambda item: _culprit(model, features([item]), item),
        )
    return embeddings if options.autocast is None else embeddings.float()


def _embedded(model: Any, features: dict[str, Any], count: int) -> Tensor:
    embeddings: Tensor = model(features)
    if len(embeddings) != count:
        counts = {name: len(encoder(features[name])) for name, encoder in model.encoders.items()}
        raise DataError(
            f"the model gave {len(embeddings)} embeddings for {count} items, by encoder {counts}; check the "
            f"collate function and the forward of the one that leaves items out"
        )
    return embeddings


def _culprit(model: Any, features: dict[str, Any], item: Any) -> str:
    for name, encoder in model.encoders.items():
        if not encoder(features[name]).isfinite().all():
            option = f", option {encoder.encoder_selection(item)!r}" if isinstance(encoder, SwitchEncoder) else ""
            return f"encoder {name!r}{option}"
    return "the head"


def _length(model: Any, item: Any) -> int:
    # Encoders of quaterion-models have no item_length.
    return sum(encoder.item_length(item) for encoder in model.encoders.values() if hasattr(encoder, "item_length"))
