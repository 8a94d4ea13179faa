"""Named encoders side by side: their checks, and the join of their outputs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from simtrain.data.collate import META
from simtrain.errors import ConfigError, DataError

DEFAULT_NAME = "default"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")


def check_name(name: Any) -> str:
    """Return ``name`` if it can name an encoder: it becomes a folder and a part of weights' names.

    Raises:
        ConfigError: It cannot.

    Example:
        >>> check_name("text")
        'text'
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"an encoder's name must be made of letters, digits, '_' and '-', got {name!r}")
    if name == META:
        raise ConfigError(f"an encoder cannot be named {META!r}: what heads are told of the items stands there")
    if hasattr(nn.ModuleDict(), name):
        raise ConfigError(f"an encoder cannot be named {name!r}, torch's ModuleDict uses that word; choose another")
    return name


def named_encoders(encoders: nn.Module | Mapping[str, nn.Module]) -> nn.ModuleDict:
    """Encoders by name, sorted; a single one is named ``"default"``. Frozen ones take no gradients from here on.

    Raises:
        ConfigError: There is none, a name cannot be used, or something is no encoder.
    """
    if not isinstance(encoders, (nn.Module, Mapping)):
        raise ConfigError(f"encoders must be an encoder, or encoders by name, got {encoders!r:.80}")
    given = {DEFAULT_NAME: encoders} if isinstance(encoders, nn.Module) else dict(encoders)
    if not given:
        raise ConfigError("a model needs at least one encoder, got none")
    named = nn.ModuleDict()
    for name in sorted(check_name(name) for name in given):
        named[name] = _checked_encoder(name, given[name])
    return named


def joint_size(encoders: Mapping[str, Any]) -> int:
    """Number of dimensions of the joined embeddings of all encoders: what a head takes."""
    return sum(int(encoder.embedding_size) for encoder in encoders.values())


def is_frozen(encoder: nn.Module) -> bool:
    """Whether training must not change ``encoder``."""
    return not encoder.trainable


def freeze(encoder: Any) -> None:
    """Take the gradients of a frozen encoder, and put it into eval mode. A trainable one is left as it is."""
    if hasattr(encoder, "disable_gradients_if_required"):  # quaterion-models: subclasses may do more than the base
        encoder.disable_gradients_if_required()
    if is_frozen(encoder):
        encoder.requires_grad_(False).eval()


def join(embeddings: Mapping[str, Float[Tensor, "batch _"]]) -> Float[Tensor, "batch dim"]:
    """Concatenate the encoders' outputs in the sorted order of their names.

    Raises:
        DataError: They differ in the number of items.

    Example:
        >>> join({"b": torch.zeros(1, 1), "a": torch.ones(1, 1)})
        tensor([[1., 0.]])
    """
    counts = {name: len(embedding) for name, embedding in embeddings.items()}
    if len(counts) > 1 and len(set(counts.values())) > 1:
        raise DataError(f"the encoders gave embeddings of unequal numbers of items: {counts}; check their collate_fn")
    if len(embeddings) == 1:
        return next(iter(embeddings.values()))
    return torch.cat([embeddings[name] for name in sorted(embeddings)], dim=1)


def _checked_encoder(name: str, encoder: Any) -> nn.Module:
    wanted = ("trainable", "embedding_size", "get_collate_fn")
    if not isinstance(encoder, nn.Module) or not all(hasattr(type(encoder), word) for word in wanted):
        raise ConfigError(f"encoder {name!r} must be a simtrain.encoders.Encoder, got {type(encoder).__name__}")
    freeze(encoder)
    return encoder
