"""What commands read: samples, models, roles of columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simtrain.errors import ConfigError, nearest


def read_samples(data: Path, kind: str, columns: dict[str, str], split: str = "test") -> Any:
    """A test set from a file or folder; see :func:`simtrain.evaluation.read_test_set`.

    Raises:
        ConfigError: The kind is unknown, or does not go with a folder.
    """
    from simtrain.evaluation import read_test_set
    from simtrain.evaluation.set_reading import KINDS

    if kind not in KINDS:
        raise ConfigError(f"unknown --kind {kind!r}; {nearest(kind, KINDS)}")
    return read_test_set(data, kind, columns, split=split)


def load_model(model: Path, cache: Path | None) -> Any:
    """A saved model; with a cache's folder, one that reads from it and adds to it."""
    from simtrain.models import SimilarityModel

    loaded = SimilarityModel.load(model)
    if cache is None:
        return loaded
    from simtrain.cache import CacheConfig, CachedModel

    return CachedModel(loaded, CacheConfig(save_dir=cache))


def roles(words: list[str] | None) -> dict[str, str]:
    """Role → name of the column, of words ROLE=NAME.

    Raises:
        ConfigError: A word is written otherwise.

    Example:
        >>> roles(["document=answer"])
        {'document': 'answer'}
    """
    for word in words or []:
        if "=" not in word:
            raise ConfigError(f"--column is written ROLE=NAME (document=answer), got {word!r}")
    return dict(word.split("=", 1) for word in words or [])
