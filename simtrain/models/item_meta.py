"""What a model's head wants to know of each item, and which encoders say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from simtrain.data.item_meta import ItemMeta
from simtrain.data.sides import SIDE
from simtrain.encoders import SwitchEncoder
from simtrain.errors import ConfigError
from simtrain.heads.encoder_head import EncoderHead


def item_meta(head: nn.Module, encoders: Mapping[str, Any]) -> ItemMeta | None:
    """What is gathered of the items of each batch for ``head``; None where it asks for nothing.

    Args:
        head: A head of simtrain, which says what it wants, or of quaterion-models, which takes all there is.
        encoders: Encoders by name.
    """
    speaking = [encoder for encoder in encoders.values() if hasattr(encoder, "get_meta_extractor")]
    known = [extractor for extractor in (encoder.get_meta_extractor() for encoder in speaking) if extractor is not None]
    if isinstance(head, EncoderHead):
        return ItemMeta(dict(head.meta_names), tuple(known)) if head.meta_names else None
    return ItemMeta(None, tuple(known)) if known else None


def check_known(head: nn.Module, encoders: Mapping[str, Any]) -> None:
    """Raise a :class:`ConfigError` where a head wants to know what no encoder says, or does not know all it can say."""
    wanted = set(getattr(head, "meta_names", {})) - {SIDE}
    if not wanted:
        return
    if item_meta(head, encoders).extractors == ():  # type: ignore[union-attr]
        raise ConfigError(
            f"{type(head).__name__} wants to know {sorted(wanted)} of each item, which no encoder says; put the "
            f"encoders into a SwitchEncoder, or take another head"
        )
    for name, encoder in encoders.items():
        options = set(encoder.options) if isinstance(encoder, SwitchEncoder) else set()
        lacking = sorted(options - set(head.meta_names.get("encoder", options)))  # type: ignore[union-attr,operator]
        if lacking:
            raise ConfigError(
                f"the encoder {name!r} has the options {sorted(options)}, but {type(head).__name__} has none for "
                f"{lacking}; give both the same names"
            )
