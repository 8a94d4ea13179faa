"""What the user asks of the cache, and which encoder gets what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from simtrain import registry
from simtrain.cache.named_functions import named_functions
from simtrain.cache.storage_types import STORAGE_TYPES
from simtrain.errors import ConfigError, nearest

KeyExtractor = Callable[[Any], Any]
#: From a raw item to a random version of it, drawn from the generators of torch, numpy or Python.
Augment = Callable[[Any], Any]


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
            one embedding, so a key must change whenever the item does. A ``pathlib.Path`` is known by its place, size
            and time of change, a ``str`` by its text alone: where texts are paths of files that may be written anew,
            extract a ``Path``, as in ``key_extractors=pathlib.Path``. Items in memory that have no content to go by
            (objects of classes of your own) are known by their number in the data; a persistent cache refuses them.
        batch_size: Items encoded at once while filling.
        num_workers: Worker processes that collate while filling; 0 collates in the main process.
        save_dir: Folder of persistent caches; needed by ``DISK``.
        dtype: Type of the stored numbers: ``"float32"``, ``"float16"`` or ``"bfloat16"``. Default, ``"auto"``:
            float32 for embeddings, float16 for what is cached at a boundary.
        views: How many random versions of each training item to encode. One of them is drawn for each item and epoch;
            validation and search see the items themselves.
        augment: Function from a raw item to a random version of it, for all cached encoders or by encoder name. It may
            draw from the CPU generators of torch, numpy and ``random``, which are set for each version and given back.
            In a config, the name of a function of ``simtrain.registry.augments``, alone or as ``{"type": name}`` with
            settings of its own; so it is with ``key_extractors``.
        seed: Seed of the versions and of the draw.
        boundary: Partly frozen encoders (``trainable="last:N"``, for a ``ModuleEncoder`` ``"from:NAME"``) of which the
            output of the last frozen layer is cached, so that only the layers above it are run: a name, several, or
            True for all that are partly frozen.

    Raises:
        ConfigError: A setting is unknown or out of range, ``DISK`` is asked for without a ``save_dir``, or ``views``
            without ``augment``.
        UnknownNameError: ``augment`` or ``key_extractors`` names a function that is not registered.

    Example:
        >>> CacheConfig("cpu", dtype="float16").cache_type
        <CacheType.CPU: 'cpu'>
        >>> CacheConfig(mapping={"text": "cpu"}).cache_type
        <CacheType.NONE: 'none'>

        Three random versions of each text, encoded once, and one of them drawn an epoch:

        >>> import random
        >>> @registry.augments.register_module()
        ... def drop_words(text, rate=0.1):
        ...     return " ".join(word for word in text.split() if random.random() >= rate) or text
        >>> CacheConfig("cpu", views=3, augment={"type": "drop_words", "rate": 0.2}).augment("the red shoe") != ""
        True

        The same in a config file, once the module with the function has been imported::

            cache: {cache_type: disk, save_dir: cache, views: 3, augment: {type: drop_words, rate: 0.2}}
    """

    cache_type: CacheType | str | None = None
    mapping: Mapping[str, CacheType | str] = field(default_factory=dict)
    key_extractors: Any = None
    batch_size: int = 64
    num_workers: int = 0
    save_dir: str | Path | None = None
    dtype: str = "auto"
    views: int = 1
    augment: Any = None
    seed: int = 0
    boundary: bool | str | Sequence[str] = False

    def __post_init__(self) -> None:
        self._check_boundary()
        self.key_extractors = named_functions(registry.key_extractors, self.key_extractors)
        self.augment = named_functions(registry.augments, self.augment)
        self.mapping = {name: cache_type_of(kind) for name, kind in self.mapping.items()}
        if self.cache_type is None:
            self.cache_type = CacheType.NONE if self.mapping else CacheType.AUTO
        self.cache_type = cache_type_of(self.cache_type)
        self.states_dtype = "float16" if self.dtype == "auto" else checked_dtype(self.dtype)
        self.dtype = "float32" if self.dtype == "auto" else checked_dtype(self.dtype)
        check_count("batch_size", self.batch_size, least=1)
        check_count("num_workers", self.num_workers, least=0)
        check_count("views", self.views, least=1)
        check_count("seed", self.seed, least=0)
        check_functions("key_extractors", self.key_extractors)
        check_functions("augment", self.augment)
        self._check_views()
        if self.save_dir is not None:
            if not isinstance(self.save_dir, (str, Path)):
                raise ConfigError(f"CacheConfig(save_dir=...) should be a path, got {self.save_dir!r}")
            self.save_dir = Path(self.save_dir).expanduser()
        elif CacheType.DISK in (self.cache_type, *self.mapping.values()):
            raise ConfigError("a DISK cache needs a folder: set CacheConfig(save_dir=...)")

    def asked_for(self, name: str) -> CacheType:
        """Cache type that the settings give to the encoder ``name``, before ``AUTO`` is decided."""
        return cache_type_of(self.mapping.get(name, self.cache_type or CacheType.AUTO))

    def key_extractor(self, name: str) -> KeyExtractor | None:
        """Key extractor of the encoder ``name``; None means that items are identified by their content."""
        extractors = self.key_extractors
        extractor: KeyExtractor | None = extractors.get(name) if isinstance(extractors, Mapping) else extractors
        return extractor

    def augment_of(self, name: str) -> Augment | None:
        """What makes versions of the encoder ``name``'s items; None for an encoder without."""
        augment: Augment | None = self.augment.get(name) if isinstance(self.augment, Mapping) else self.augment
        return augment

    def _check_views(self) -> None:
        if self.views > 1 and not self.augment:
            raise ConfigError(
                f"views={self.views} needs a function from an item to a random version of it: set "
                f"CacheConfig(augment=...). A random transform in an encoder's collate function is no such function, "
                f"since validation and search would go through it too"
            )

    def _check_boundary(self) -> None:
        named = [self.boundary] if isinstance(self.boundary, str) else self.boundary
        if not isinstance(named, bool) and not (
            isinstance(named, Sequence) and all(isinstance(name, str) for name in named)
        ):
            raise ConfigError(f"boundary must be True, False, an encoder's name or several, got {self.boundary!r:.80}")
        self.boundary = named if isinstance(named, bool) else list(named)
        if self.boundary and self.cache_type is not None and cache_type_of(self.cache_type) is CacheType.NONE:
            raise ConfigError("boundary asks for a cache and cache_type=NONE for none; leave one of them out")


def check_count(setting: str, value: int, least: int) -> None:
    """Raise a ConfigError unless ``value`` is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"CacheConfig({setting}=...) must be an integer of at least {least}, got {value!r}")


def checked_dtype(dtype: str) -> str:
    """Name of a storage type without the word torch.

    Raises:
        ConfigError: There is no such type.
    """
    name = dtype.removeprefix("torch.")
    if name not in STORAGE_TYPES:
        raise ConfigError(f"unknown dtype {name!r} for a cache; {nearest(name, STORAGE_TYPES)}")
    return name


def check_functions(setting: str, given: object) -> None:
    """Raise a ConfigError unless ``given`` is None, a function, or a mapping to functions."""
    functions = list(given.values()) if isinstance(given, Mapping) else [given]
    for function in functions:
        if not callable(function) and given is not None:
            raise ConfigError(
                f"{setting} must be a function or {{encoder name: function}}, got {function!r:.80} "
                f"of type {type(function).__name__}"
            )
