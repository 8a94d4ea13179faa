"""What commands read: samples, models, roles of columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simtrain.errors import ConfigError, nearest


def read_samples(data: Path, kind: str, columns: dict[str, str], split: str = "test") -> Any:
    """Samples of a file, or of a folder: in BEIR's format, or of images by group.

    Args:
        data: The file or folder.
        kind: ``pairs``, ``triplets``, ``groups`` or ``query_gallery``; a folder of BEIR says itself what it is.
        columns: Role → name of the column.
        split: Which judgements of a folder of BEIR.

    Raises:
        ConfigError: The kind is unknown, or does not go with a folder.
    """
    from simtrain.data import read_groups, read_image_folder, read_pairs, read_query_gallery, read_triplets
    from simtrain.evaluation import read_beir

    readers: dict[str, Any] = {"pairs": read_pairs, "triplets": read_triplets, "groups": read_groups}
    if kind not in (*readers, "query_gallery"):
        raise ConfigError(f"unknown --kind {kind!r}; {nearest(kind, [*readers, 'query_gallery'])}")
    if any((data / name).is_file() for name in ("corpus.jsonl", "corpus.jsonl.gz")):
        return read_beir(data, split)
    if data.is_dir():
        if kind != "groups":
            raise ConfigError(
                f"{str(data)!r} is a folder: give one in BEIR's format (corpus.jsonl, queries.jsonl, qrels/), or one "
                f"of images in a sub-folder a group with --kind groups; got --kind {kind}"
            )
        return read_image_folder(data)
    return read_query_gallery(data, None, columns) if kind == "query_gallery" else readers[kind](data, columns)


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
