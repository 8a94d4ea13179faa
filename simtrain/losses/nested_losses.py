"""Losses inside losses: built from configs, described for saving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simtrain import registry
from simtrain.errors import ConfigError
from simtrain.losses.similarity_loss import SimilarityLoss

GivenLoss = SimilarityLoss | Mapping[str, Any]


def nested_loss(given: Any, place: str) -> SimilarityLoss:
    """A loss as it is, or built from its config.

    Args:
        given: A loss, or ``{"type": name of a registered loss, **constructor arguments}``.
        place: Where it stands, for messages.

    Raises:
        ConfigError: ``given`` is neither, or its config is wrong; the message starts with ``place``.

    Example:
        >>> nested_loss({"type": "TripletLoss", "margin": 0.2}, "the inner loss").margin
        0.2
    """
    try:
        loss = registry.losses.build(given) if isinstance(given, Mapping) else given
    except ConfigError as error:
        raise type(error)(f"{place}: {error}") from error
    if not isinstance(loss, SimilarityLoss):
        raise ConfigError(f"{place} must be a loss or its config {{'type': NAME, ...}}, got {type(loss).__name__}")
    return loss


def describe_loss(loss: SimilarityLoss) -> dict[str, Any]:
    """The config from which :func:`nested_loss` builds an equal loss; of an unregistered class, its name alone.

    Example:
        >>> from simtrain.losses import NTXentLoss
        >>> describe_loss(NTXentLoss())
        {'type': 'NTXentLoss', 'temperature': 0.1}
    """
    return {"type": type(loss).__name__, **loss.get_config_dict()}
