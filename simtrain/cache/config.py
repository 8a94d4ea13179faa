"""What the user asks of the cache, and which encoder gets what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import nn

from simtrain.cache.storage_types import STORAGE_TYPES
from simtrain.errors import ConfigError, nearest

KeyExtractor = Callable[[Any], Any]


class CacheType(str, Enum):
    """Where the embeddings of frozen encoders are kept.

    ``AUTO`` is ``DISK`` when a ``save_dir`` is given, else ``GPU`` when training runs on CUDA, else ``CPU``.
    """

    AUTO = "auto"
    CPU = "cpu"
    GPU = "gpu"
    DISK = "disk"
    NONE = "none"


def cache_type_of(value: CacheType | str) -> CacheType:
    """Turn a name into a :class:`CacheType`, in any case of letters.

    Raises:
        ConfigError: No cache type has that name.

    Example:
        >>> cache_type_of("Disk")
        <CacheType.DISK: 'disk'>
    """
    name = value.value if isinstance(value, CacheType) else str(value).lower()
    names = [kind.value for kind in CacheType]
    if name not in names:
        raise ConfigError(f"unknown cache type {value!r}; {nearest(name, names)}")
    return CacheType(name)


@dataclass
class CacheConfig:
    """How embeddings of frozen encoders are cached.

    Args:
        cache_type: Where to keep them. Default: ``AUTO``; or ``NONE`` when a ``mapping`` is given, so that only
            the encoders named there are cached.
        mapping: Encoder name → cache type, for encoders that differ from ``cache_type``.
        key_extractors: Function from an item to the value that identifies it (text, bytes, number or a tuple of
            them), for all encoders or by encoder name. Default: the item's content. Items with equal keys share
            one embedding, so a key must change whenever the item does.
        batch_size: Items encoded at once while filling.
        num_workers: Worker processes that collate while filling; 0 collates in the main process.
        save_dir: Folder of persistent caches; needed by ``DISK``.
        dtype: Type of the stored numbers: ``"float32"``, ``"float16"`` or ``"bfloat16"``.

    Raises:
        ConfigError: A setting is unknown or out of range, or ``DISK`` is asked for without a ``save_dir``.

    Example:
        >>> CacheConfig("cpu", dtype="float16").cache_type
        <CacheType.CPU: 'cpu'>
        >>> CacheConfig(mapping={"text": "cpu"}).cache_type
        <CacheType.NONE: 'none'>
    """

    cache_type: CacheType | str | None = None
    mapping: Mapping[str, CacheType | str] = field(default_factory=dict)
    key_extractors: KeyExtractor | Mapping[str, KeyExtractor] | None = None
    batch_size: int = 64
    num_workers: int = 0
    save_dir: str | Path | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        self.mapping = {name: cache_type_of(kind) for name, kind in self.mapping.items()}
        if self.cache_type is None:
            self.cache_type = CacheType.NONE if self.mapping else CacheType.AUTO
        self.cache_type = cache_type_of(self.cache_type)
        self.dtype = self.dtype.removeprefix("torch.")
        if self.dtype not in STORAGE_TYPES:
            raise ConfigError(f"unknown dtype {self.dtype!r} for a cache; {nearest(self.dtype, STORAGE_TYPES)}")
        check_count("batch_size", self.batch_size, least=1)
        check_count("num_workers", self.num_workers, least=0)
        check_extractors(self.key_extractors)
        if self.save_dir is not None:
            self.save_dir = Path(self.save_dir).expanduser()
        elif CacheType.DISK in (self.cache_type, *self.mapping.values()):
            raise ConfigError("a DISK cache needs a folder: set CacheConfig(save_dir=...)")

    def asked_for(self, name: str) -> CacheType:
        """Cache type that the settings give to the encoder ``name``, before ``AUTO`` is decided."""
        return cache_type_of(self.mapping.get(name, self.cache_type or CacheType.AUTO))

    def key_extractor(self, name: str) -> KeyExtractor | None:
        """Key extractor of the encoder ``name``; None means that items are identified by their content."""
        if isinstance(self.key_extractors, Mapping):
            return self.key_extractors.get(name)
        return self.key_extractors


def check_count(setting: str, value: int, least: int) -> None:
    """Raise a ConfigError unless ``value`` is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"CacheConfig({setting}=...) must be an integer of at least {least}, got {value!r}")


def check_extractors(extractors: object) -> None:
    """Raise a ConfigError unless ``extractors`` is None, a function, or a mapping to functions."""
    functions = list(extractors.values()) if isinstance(extractors, Mapping) else [extractors]
    for function in functions:
        if not callable(function) and extractors is not None:
            raise ConfigError(
                f"key_extractors must be a function or {{encoder name: function}}, got {function!r:.80} "
                f"of type {type(function).__name__}"
            )


def resolve(config: CacheConfig, encoders: Mapping[str, nn.Module], device: torch.device | str) -> dict[str, CacheType]:
    """Decide for each encoder where its embeddings are cached.

    Only frozen encoders can be cached. ``AUTO``, and a ``cache_type`` meant for all encoders, skip trainable ones.

    Args:
        config: What was asked for.
        encoders: Encoder name → encoder.
        device: Device that training runs on.

    Returns:
        Encoder name → ``CPU``, ``GPU``, ``DISK`` or ``NONE``, for every encoder.

    Raises:
        ConfigError: ``mapping`` or ``key_extractors`` name an unknown encoder, a trainable encoder is to be cached,
            or ``GPU`` is asked for while training runs on the CPU.

    Example:
        >>> from simtrain.encoders import Encoder
        >>> class Frozen(Encoder):
        ...     trainable = False
        >>> resolve(CacheConfig(), {"text": Frozen()}, "cpu")
        {'text': <CacheType.CPU: 'cpu'>}
    """
    check_names(config, encoders)
    device = torch.device(device)
    types = {name: resolve_one(config, name, encoder, device) for name, encoder in encoders.items()}
    wanted = cache_type_of(config.cache_type or CacheType.AUTO)
    explicit = wanted not in (CacheType.AUTO, CacheType.NONE)
    if explicit and not config.mapping and all(bool(encoder.trainable) for encoder in encoders.values()):
        raise ConfigError(
            f"cache_type={wanted.name} was asked for, but every encoder is trainable ({', '.join(sorted(encoders))}); "
            f"only frozen encoders can be cached: freeze one, or use cache_type=NONE"
        )
    return types


def check_names(config: CacheConfig, encoders: Mapping[str, nn.Module]) -> None:
    """Raise a ConfigError if the settings name an encoder that does not exist."""
    extractors = config.key_extractors if isinstance(config.key_extractors, Mapping) else {}
    for setting, names in (("mapping", config.mapping), ("key_extractors", extractors)):
        for name in names:
            if name not in encoders:
                raise ConfigError(f"CacheConfig({setting}=...) names no encoder {name!r}; {nearest(name, encoders)}")


def resolve_one(config: CacheConfig, name: str, encoder: nn.Module, device: torch.device) -> CacheType:
    """Decide where one encoder's embeddings are cached; see :func:`resolve`."""
    asked = config.asked_for(name)
    if asked is CacheType.NONE:
        return CacheType.NONE
    if encoder.trainable:
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
