"""Losses inside losses: built from configs, described for saving."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

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


def check_part_memory(loss: SimilarityLoss, place: str) -> None:
    """As :meth:`SimilarityLoss.check_memory`; an error's message starts with ``place``.

    Example:
        >>> from simtrain.losses import CoSENTLoss
        >>> check_part_memory(CoSENTLoss(), "CombinedLoss: order")
        Traceback (most recent call last):
        ...
        simtrain.errors.ConfigError: CombinedLoss: order: a cross-batch memory works with ..., CoSENTLoss has none; ...
    """
    try:
        loss.check_memory()
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error


def total_active(counts: Iterable[Tensor | float | None]) -> dict[str, Tensor | float]:
    """``n_active`` of a loss from those of its parts, to be noted; nothing where a part has none.

    Example:
        >>> total_active([2.0, 3.0]), total_active([2.0, None])
        ({'n_active': 5.0}, {})
    """
    given = list(counts)
    known = [count for count in given if count is not None]
    return {"n_active": sum(known[1:], start=known[0])} if known and len(known) == len(given) else {}


def describe_loss(loss: SimilarityLoss) -> dict[str, Any]:
    """The config from which :func:`nested_loss` builds an equal loss; of an unregistered class, its name alone.

    Example:
        >>> from simtrain.losses import NTXentLoss
        >>> describe_loss(NTXentLoss())
        {'type': 'NTXentLoss', 'temperature': 0.1}
    """
    return {"type": type(loss).__name__, **loss.get_config_dict()}
