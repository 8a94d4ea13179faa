"""The cache at the boundary of a partly frozen encoder: what its frozen layers give, for each token."""

from __future__ import annotations

import math
import re
import reprlib
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from simtrain.cache.config import CacheConfig, CacheType
from simtrain.cache.dense_states import DenseStateCache
from simtrain.cache.digests import node
from simtrain.cache.disk_store import DiskStore
from simtrain.cache.embedding_cache import EmbeddingCache
from simtrain.cache.filling import Items, Positions, explain_infinite
from simtrain.cache.fingerprint import callable_fingerprint
from simtrain.cache.identity import Identity
from simtrain.cache.module_parts import ignored_names
from simtrain.cache.ragged import Padded, Ragged, ragged
from simtrain.cache.ragged_disk_store import RaggedDiskStore
from simtrain.cache.ragged_store import RaggedMemoryStore, RaggedStore
from simtrain.cache.storage_types import STORAGE_TYPES
from simtrain.cache.stores import MemoryStore, Store
from simtrain.data.transfer import move_to
from simtrain.encoders.layer_split import SplitEncoder
from simtrain.encoders.module_split import DenseSplitEncoder
from simtrain.errors import ConfigError, DataError


class StateCache(EmbeddingCache):
    """Token states of a partly frozen encoder, computed once for each distinct text.

    It is filled and looked up like an :class:`EmbeddingCache`; :meth:`gather` gives padded states in the place of
    embeddings.

    Args:
        encoder: An encoder that can be cut between its frozen and its trained layers.
        store: Where the states are kept.
        **options: Those of :class:`EmbeddingCache`.
    """

    store: RaggedStore  # type: ignore[assignment]

    @property
    def embedding_size(self) -> int:
        """Number of dimensions of an embedding of the whole encoder."""
        return int(self.encoder.embedding_size)  # type: ignore[arg-type]

    def gather(self, rows: Int64[Tensor, " n"], device: torch.device | str | None = None) -> Padded:  # type: ignore[override]
        """States of rows in the stored type and their mask, on ``device`` (default: the cache's)."""
        return self.store.gather(rows, device or self.device)

    def _encoded(self, batch: Any, objects: Items, positions: Positions) -> Ragged:
        encoder = cast("SplitEncoder", self.encoder)
        with torch.inference_mode():
            states = ragged(*encoder.frozen_part(move_to(batch, self.device)))
        return checked_states(self.name, states, objects, positions, self.store.dim, self.store.dtype)


def checked_states(name: str, states: Ragged, items: Items, positions: Positions, dim: int, dtype: str) -> Ragged:
    """Return a batch's states in the stored type, if they have the right shape and are finite.

    Raises:
        DataError: They are not; the message names the encoder and the item.
    """
    if len(states.lengths) != len(positions) or states.values.shape[1] != dim:
        raise DataError(
            f"encoder {name!r} must give states of {dim} dimensions for {len(positions)} items, got "
            f"{states.values.shape[1]} dimensions for {len(states.lengths)}"
        )
    stored = states.values.to(STORAGE_TYPES[dtype])
    finite = stored.isfinite().all(dim=1)
    if bool(finite.all()):
        return Ragged(stored, states.lengths)
    token = int((~finite).nonzero()[0])
    row = int(torch.searchsorted(states.lengths.cumsum(0), torch.tensor(token, device=stored.device), right=True))
    raise DataError(
        f"the frozen layers of encoder {name!r} give {explain_infinite(states.values[token], dtype)} for item "
        f"{int(positions[row])}, {reprlib.repr(items[int(positions[row])])}"
    )


def boundary_fingerprint(encoder: nn.Module) -> str:
    """Identity of what the states at the boundary depend on: the frozen layers and their weights, and the collating.

    It stays the same while the layers above the boundary are trained, and changes when the boundary is moved.

    Args:
        encoder: An encoder that can be cut; see :class:`~simtrain.encoders.layer_split.SplitEncoder` and
            :class:`~simtrain.encoders.module_split.DenseSplitEncoder`.

    Returns:
        32 hexadecimal digits, equal in every process.
    """
    frozen = cast("SplitEncoder | DenseSplitEncoder", encoder).frozen_modules()
    collate_fn = encoder.get_collate_fn()  # type: ignore[operator]
    ignored = ignored_names(encoder)
    layers, collating = Identity(ignored=ignored), Identity(encoder, ignored)
    parts = layers.whole("layers", layers.of_module(frozen)), collating.whole("collating", collating.of(collate_fn))
    return node("boundary", *(part.encode() for part in parts)).hex()


def open_states(
    name: str, encoder: nn.Module, config: CacheConfig, cache_type: CacheType, device: torch.device | str = "cpu"
) -> StateCache | DenseStateCache:
    """Open the cache at an encoder's boundary: an empty one in memory, or one on disk with what earlier runs left.

    Args:
        name: Name of the encoder.
        encoder: An encoder that can be cut.
        config: Settings of the cache.
        cache_type: ``CPU``, ``GPU`` or ``DISK``, as :func:`~simtrain.cache.resolve` decides.
        device: Device that training runs on.

    Raises:
        ConfigError: The encoder cannot be cut, or ``DISK`` is asked for without a ``save_dir``.
        CacheError: The folder cannot be used.
    """
    options: dict[str, Any] = {"key_extractor": config.key_extractor(name), "device": device, "name": name}
    place = torch.device(device) if cache_type is CacheType.GPU else torch.device("cpu")
    dtype = config.states_dtype
    if isinstance(encoder, DenseSplitEncoder):
        shape = encoder.get_state_shape()
        dense: Store = (
            DiskStore(dim=math.prod(shape), dtype=dtype, **state_folder(name, encoder, config))
            if cache_type is CacheType.DISK
            else MemoryStore(math.prod(shape), dtype, place)
        )
        return DenseStateCache(encoder, dense, shape, **options)
    dim = int(cast("SplitEncoder", encoder).state_size)
    store: Any = (
        RaggedDiskStore(dim=dim, dtype=dtype, **state_folder(name, encoder, config))
        if cache_type is CacheType.DISK
        else RaggedMemoryStore(dim, dtype, place)
    )
    return StateCache(encoder, store, **options)


def state_folder(name: str, encoder: nn.Module, config: CacheConfig) -> dict[str, Any]:
    """Folder of the states at an encoder's boundary, what they are made by, and that in words.

    Raises:
        ConfigError: There is no ``save_dir``.
    """
    if config.save_dir is None:
        raise ConfigError("a DISK cache needs a folder: set CacheConfig(save_dir=...)")
    extractor = config.key_extractor(name)
    keys = callable_fingerprint(extractor) if extractor is not None else "content"
    fingerprint = node(
        "states", boundary_fingerprint(encoder).encode(), keys.encode(), config.states_dtype.encode()
    ).hex()
    folder = re.sub(r"[^\w.-]", "_", name) + f"-{fingerprint}"
    kind = f"{type(encoder).__name__}, {'states' if isinstance(encoder, DenseSplitEncoder) else 'token states'}"
    return {"folder": Path(config.save_dir) / folder, "fingerprint": fingerprint, "encoder": kind}
