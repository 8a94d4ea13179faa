"""Which encoder gave an embedding that is not finite, and for which item."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from simtrain.cache.cached_encoder import CachedEncoder
from simtrain.data.batches import SampleBatch, layout_of
from simtrain.errors import DataError
from simtrain.models import SimilarityModel
from simtrain.models.eval_mode import eval_mode


class Culprit(NamedTuple):
    """An embedding that is not finite.

    Attributes:
        encoder: Name of the encoder that gave it.
        row: Its row in the batch of embeddings.
    """

    encoder: str
    row: int


def may_be_unchecked(model: SimilarityModel) -> bool:
    """Whether some encoder is not cached: what a cache gives was checked when it was filled."""
    return not all(isinstance(encoder, CachedEncoder) for encoder in model.encoders.values())


def find_culprit(model: SimilarityModel, features: Mapping[str, Any]) -> Culprit | None:
    """The first embedding of a batch that is not finite, by an encoder whose weights are.

    Weights or buffers of a trained encoder that are not finite come from a training that broke, or from this very
    batch by way of a batch norm; then it cannot say which item is to blame.

    Args:
        model: The model.
        features: For each encoder's name its batch.
    """
    for name, encoder in model.encoders.items():
        if isinstance(encoder, CachedEncoder) or not _has_finite_weights(encoder):
            continue
        # In eval mode: a batch norm in training would spread one item's NaN over the batch.
        with torch.no_grad(), eval_mode(encoder):
            finite = encoder(features[name]).isfinite().all(dim=1)
        if not bool(finite.all()):
            return Culprit(name, int((~finite).nonzero()[0]))
    return None


def blame(culprit: Culprit, batch: Any, targets: Mapping[str, Tensor]) -> DataError:
    """The error that names encoder and item.

    Args:
        culprit: What was found.
        batch: The batch as the step got it: raw samples tell which item it is.
        targets: Targets of the batch; ``items``, where they are there, are numbers of the data set's items.
    """
    item = f"item {culprit.row} of the batch"
    if isinstance(batch, SampleBatch) and batch.numbers is not None:
        item += f", row {batch.numbers[culprit.row]} of the data set"
    elif "items" in targets and len(targets["items"]) > culprit.row:
        item += f", number {int(targets['items'][culprit.row])} of the data set's items"
    shown = _raw(batch, culprit.row)
    return DataError(
        f"encoder {culprit.encoder!r} gives an embedding with NaN or infinite values for {item}{shown}; no weight was "
        f"changed by it; check or leave out the item"
    )


def _raw(batch: Any, row: int) -> str:
    if isinstance(batch, list):
        return f", {reprlib.repr(layout_of(batch).objects(batch)[row])}"
    return f", {reprlib.repr(batch.objects[row])}" if isinstance(batch, SampleBatch) else ""


def _has_finite_weights(encoder: Any) -> bool:
    # A frozen encoder's weights cannot have been spoiled by training; if they are not finite, it is to blame.
    tensors = [*encoder.parameters(), *encoder.buffers()]
    return not encoder.trainable or all(bool(tensor.isfinite().all()) for tensor in tensors)
