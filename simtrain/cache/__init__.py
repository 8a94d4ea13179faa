"""The cache: frozen encoders run once, and what they gave is never mistaken for anything else."""

from simtrain.cache.boundary import BoundaryEncoder
from simtrain.cache.cached_encoder import CachedEncoder
from simtrain.cache.cached_model import CachedModel
from simtrain.cache.config import CacheConfig, CacheType
from simtrain.cache.disk_store import DiskStore
from simtrain.cache.embedding_cache import EmbeddingCache, FillReport
from simtrain.cache.fingerprint import callable_fingerprint, encoder_fingerprint
from simtrain.cache.item_keys import item_key, item_keys
from simtrain.cache.opening import open_cache
from simtrain.cache.resolving import resolve
from simtrain.cache.state_cache import StateCache, boundary_fingerprint
from simtrain.cache.stores import MemoryStore, Store

__all__ = [
    "BoundaryEncoder",
    "CacheConfig",
    "CacheType",
    "CachedEncoder",
    "CachedModel",
    "DiskStore",
    "EmbeddingCache",
    "FillReport",
    "MemoryStore",
    "StateCache",
    "Store",
    "boundary_fingerprint",
    "callable_fingerprint",
    "encoder_fingerprint",
    "item_key",
    "item_keys",
    "open_cache",
    "resolve",
]
