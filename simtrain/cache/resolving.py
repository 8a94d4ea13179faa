"""Which encoder is cached where."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from simtrain.cache.config import CacheConfig, CacheType, cache_type_of
from simtrain.encoders.layer_split import SplitEncoder
from simtrain.encoders.module_split import DenseSplitEncoder
from simtrain.errors import ConfigError, nearest


def resolve(config: CacheConfig, encoders: Mapping[str, nn.Module], device: torch.device | str) -> dict[str, CacheType]:
    """Decide for each encoder where its embeddings are cached.

    Only frozen encoders can be cached, and what lies below the ``boundary`` of others. ``AUTO``, and a ``cache_type``
    meant for all encoders, skip trainable ones.

    Args:
        config: What was asked for.
        encoders: Encoder name → encoder.
        device: Device that training runs on.

    Returns:
        Encoder name → ``CPU``, ``GPU``, ``DISK`` or ``NONE``, for every encoder.

    Raises:
        ConfigError: A setting names an unknown encoder, a trainable encoder is to be cached, one that cannot be cut is
            to have a ``boundary``, ``augment`` is for an encoder that is not cached, or ``GPU`` is asked for while
            training runs on the CPU.

    Example:
        >>> from simtrain.encoders import Encoder
        >>> class Frozen(Encoder):
        ...     trainable = False
        >>> resolve(CacheConfig(), {"text": Frozen()}, "cpu")
        {'text': <CacheType.CPU: 'cpu'>}
    """
    check_names(config, encoders)
    device = torch.device(device)
    cut = boundary_names(config, encoders)
    types = {name: resolve_one(config, name, encoder, device, name in cut) for name, encoder in encoders.items()}
    check_augmented(config, types)
    wanted = cache_type_of(config.cache_type or CacheType.AUTO)
    explicit = wanted not in (CacheType.AUTO, CacheType.NONE)
    if explicit and not config.mapping and not cut and all(bool(encoder.trainable) for encoder in encoders.values()):
        raise ConfigError(
            f"cache_type={wanted.name} was asked for, but every encoder is trainable ({', '.join(sorted(encoders))}); "
            f"only frozen encoders can be cached: freeze one, or use cache_type=NONE"
        )
    return types


def check_names(config: CacheConfig, encoders: Mapping[str, nn.Module]) -> None:
    """Raise a ConfigError if the settings name an encoder that does not exist."""
    extractors = config.key_extractors if isinstance(config.key_extractors, Mapping) else {}
    augment = config.augment if isinstance(config.augment, Mapping) else {}
    boundary = () if isinstance(config.boundary, bool) else config.boundary
    settings = {"mapping": config.mapping, "key_extractors": extractors, "augment": augment, "boundary": boundary}
    for setting, names in settings.items():
        for name in names:
            if name not in encoders:
                raise ConfigError(f"CacheConfig({setting}=...) names no encoder {name!r}; {nearest(name, encoders)}")


def boundary_names(config: CacheConfig, encoders: Mapping[str, nn.Module]) -> set[str]:
    """Names of the encoders that are cached at a boundary.

    Raises:
        ConfigError: One of those named cannot be cut, or none can for ``boundary=True``.
    """
    if not config.boundary:
        return set()
    if not isinstance(config.boundary, bool):
        for name in config.boundary:
            check_split(name, encoders[name])
        return set(config.boundary)
    refused: dict[str, ConfigError] = {}
    for name, encoder in encoders.items():
        try:
            check_split(name, encoder)
        except ConfigError as error:
            refused[name] = error
    if len(refused) == len(encoders):
        raise ConfigError(f"boundary=True, but no encoder can be cut: {'; '.join(map(str, refused.values()))}")
    return set(encoders) - set(refused)


def check_split(name: str, encoder: nn.Module) -> None:
    """Raise a ConfigError unless an encoder can be cut between frozen and trained layers."""
    if not isinstance(encoder, (SplitEncoder, DenseSplitEncoder)):
        raise ConfigError(
            f"boundary: the encoder {name!r}, a {type(encoder).__name__}, cannot be cut between its layers; a "
            f"TransformerEncoder, SentenceTransformerEncoder or VisionEncoder with trainable='last:N' can, and a "
            f"ModuleEncoder with trainable='from:NAME'"
        )
    try:
        encoder.check_split()
    except ConfigError as error:
        raise ConfigError(f"boundary: encoder {name!r}: {error}") from error


def check_augmented(config: CacheConfig, types: Mapping[str, CacheType]) -> None:
    """Raise a ConfigError if items are to be augmented for an encoder that is not cached."""
    names = list(config.augment) if isinstance(config.augment, Mapping) else []
    missed = [name for name in names if types[name] is CacheType.NONE]
    if config.augment is not None and not names and set(types.values()) == {CacheType.NONE}:
        missed = list(types)
    if missed:
        raise ConfigError(
            f"augment is for encoders that are cached, and {missed[0]!r} is not; cache it, or augment in the data set"
        )


def resolve_one(
    config: CacheConfig, name: str, encoder: nn.Module, device: torch.device, at_boundary: bool = False
) -> CacheType:
    """Decide where one encoder's embeddings are cached; see :func:`resolve`."""
    asked = config.asked_for(name)
    if at_boundary and (asked is CacheType.AUTO or (asked is CacheType.NONE and name not in config.mapping)):
        # Not the GPU by itself: a text has many token states.
        return CacheType.CPU if config.save_dir is None else CacheType.DISK
    if asked is CacheType.NONE:
        return CacheType.NONE
    if encoder.trainable and not at_boundary:
        if name in config.mapping and asked is not CacheType.AUTO:
            raise ConfigError(
                f"the encoder {name!r} is trainable, so its embeddings change while training and cannot be cached; "
                f"freeze it, or map it to CacheType.NONE"
            )
        return CacheType.NONE
    if asked is CacheType.AUTO:
        return automatic_type(config, device)
    if asked is CacheType.GPU and device.type == "cpu":
        raise ConfigError(
            f"the encoder {name!r} is to be cached on the GPU, but training runs on the CPU; use AUTO or CPU"
        )
    return asked


def automatic_type(config: CacheConfig, device: torch.device) -> CacheType:
    """Decide what ``AUTO`` means: a given folder first, then the device of training."""
    if config.save_dir is not None:
        return CacheType.DISK
    return CacheType.GPU if device.type == "cuda" else CacheType.CPU
