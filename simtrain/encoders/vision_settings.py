"""The settings of the encoder of images: checked, and read again from where they were saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from simtrain.encoders.partial_freezing import blocks_and_rest
from simtrain.errors import ConfigError, ServableError


def three_numbers(name: str, values: Any) -> tuple[float, ...]:
    """A number for each channel.

    Raises:
        ConfigError: There are not three.
    """
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 3:
        raise ConfigError(f"{name} must be three numbers, one for each channel, got {values!r:.80}")
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} must be three numbers, one for each channel, got {values!r:.80}") from error


def trained_blocks(backbone: nn.Module, count: int | None) -> list[nn.Module]:
    """The last ``count`` blocks and what comes after them; all for None, nothing for 0."""
    if count is None:
        return [backbone]
    return blocks_and_rest(backbone, count) if count else []


def name_of(function: Any) -> str:
    """Full name of a function, or of the class of a callable object."""
    name = getattr(function, "__qualname__", None)
    return f"{function.__module__}.{name}" if name else f"{type(function).__module__}.{type(function).__qualname__}"


def saved_transform(settings: Mapping[str, Any], given: Any, file: Path) -> Any:
    """The transform that saved settings ask for.

    Raises:
        ServableError: It was a function, and none is given.
    """
    saved = settings.get("transform")
    if given is None and isinstance(saved, str):
        raise ServableError(f"{file} was saved with the transform {saved!r}; pass transform=...")
    return saved if given is None else given


def no_backbone(settings: Mapping[str, Any], file: Path) -> ServableError:
    """Say that saved weights need a backbone to be put into."""
    return ServableError(
        f"{file.parent} holds the weights of a {settings.get('backbone')!r}, and no code is loaded from files: "
        f"pass backbone=... (to SimilarityModel.load encoders={{NAME: VisionEncoder(...)}}), or save a "
        f"registered subclass of VisionEncoder that builds its own backbone"
    )
