"""Opening the cache of an encoder as a configuration asks for it."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

from simtrain.cache.config import CacheConfig, CacheType, cache_type_of
from simtrain.cache.digests import node
from simtrain.cache.disk_store import DiskStore
from simtrain.cache.embedding_cache import EmbeddingCache
from simtrain.cache.fingerprint import callable_fingerprint, encoder_fingerprint
from simtrain.cache.manifest import FORMAT
from simtrain.cache.stores import MemoryStore, Store
from simtrain.errors import ConfigError


def open_cache(
    name: str, encoder: nn.Module, config: CacheConfig, cache_type: CacheType | str, device: torch.device | str = "cpu"
) -> EmbeddingCache:
    """Open the cache of one encoder: an empty one in memory, or one on disk with all that earlier runs left there.

    Args:
        name: Name of the encoder.
        encoder: A frozen encoder.
        config: Settings of the cache.
        cache_type: ``CPU``, ``GPU`` or ``DISK``, as :func:`~simtrain.cache.resolve` decides.
        device: Device that training runs on.

    Returns:
        The cache; call its ``fill`` next.

    Raises:
        ConfigError: ``cache_type`` is ``AUTO`` or ``NONE``, or ``DISK`` without a ``save_dir``.
        CacheError: The folder cannot be used, or the encoder has no identity.

    Example:
        >>> from simtrain.encoders import ModuleEncoder
        >>> len(open_cache("text", ModuleEncoder(nn.Identity(), 2), CacheConfig(), "cpu").store)
        0
    """
    store = open_store(name, encoder, config, cache_type_of(cache_type), torch.device(device))
    return EmbeddingCache(encoder, store, config.key_extractor(name), device=device, name=name)


def open_store(
    name: str, encoder: nn.Module, config: CacheConfig, cache_type: CacheType, device: torch.device
) -> Store:
    """Open the store of one encoder; see :func:`open_cache`."""
    dim = int(encoder.embedding_size)  # type: ignore[arg-type]
    if cache_type is CacheType.CPU:
        return MemoryStore(dim, config.dtype)
    if cache_type is CacheType.GPU:
        return MemoryStore(dim, config.dtype, device)
    if cache_type is not CacheType.DISK:
        raise ConfigError(f"open_cache takes CPU, GPU or DISK, got {cache_type.name}; resolve() decides on one of them")
    if config.save_dir is None:
        raise ConfigError("a DISK cache needs a folder: set CacheConfig(save_dir=...)")
    fingerprint = cache_fingerprint(name, encoder, config)
    folder = re.sub(r"[^\w.-]", "_", name) + f"-{fingerprint}"
    kind = type(encoder).__name__
    return DiskStore(Path(config.save_dir) / folder, dim, config.dtype, fingerprint=fingerprint, encoder=kind)


def cache_fingerprint(name: str, encoder: nn.Module, config: CacheConfig) -> str:
    """Identity of all that a stored embedding depends on besides its item: encoder, key extractor, type, format."""
    extractor = config.key_extractor(name)
    keys = callable_fingerprint(extractor) if extractor is not None else "content"
    return node(f"cache {FORMAT}", encoder_fingerprint(encoder).encode(), keys.encode(), config.dtype.encode()).hex()
