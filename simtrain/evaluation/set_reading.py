"""Test sets from files and folders, whatever their kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from simtrain.data import read_groups, read_image_folder, read_pairs, read_query_gallery, read_triplets
from simtrain.errors import ConfigError, nearest
from simtrain.evaluation.beir import read_beir
from simtrain.evaluation.image_sets import (
    read_cars196,
    read_cub200,
    read_in_shop,
    read_inaturalist,
    read_online_products,
)

#: Kinds of tables, with columns.
TABLES: dict[str, Callable[[Path, Any], Any]] = {
    "pairs": lambda path, columns: read_pairs(path, columns),
    "triplets": lambda path, columns: read_triplets(path, columns),
    "groups": lambda path, columns: read_groups(path, columns),
    "query_gallery": lambda path, columns: read_query_gallery(path, None, columns),
}
#: Kinds of folders in a layout of their own.
FOLDERS: dict[str, Callable[[Path], Any]] = {
    "cub200": lambda path: read_cub200(path).test,
    "cars196": lambda path: read_cars196(path).test,
    "online_products": lambda path: read_online_products(path).test,
    "in_shop": lambda path: read_in_shop(path).test,
    "inaturalist": lambda path: read_inaturalist(path).test,
}
KINDS = (*TABLES, "beir", *FOLDERS)


def read_test_set(
    path: str | Path, kind: str = "pairs", columns: Mapping[str, str] | None = None, *, split: str = "test"
) -> Any:
    """Read what :func:`simtrain.evaluate` measures on.

    Args:
        path: A table (CSV, TSV, JSONL, Parquet), or a folder.
        kind: Of a table ``"pairs"``, ``"triplets"``, ``"groups"`` or ``"query_gallery"``; of a folder ``"beir"`` (known
            by its ``corpus.jsonl`` whatever is said), ``"groups"`` (images in a sub-folder a group), or the layout of a
            benchmark: ``"cub200"``, ``"cars196"``, ``"online_products"``, ``"in_shop"``, ``"inaturalist"``.
        columns: Which column of a table holds what, where it is called otherwise.
        split: Which judgements of a BEIR folder.

    Returns:
        Samples, a query/gallery test or a :class:`~simtrain.evaluation.JudgedSearch`.

    Raises:
        ConfigError: The kind is unknown, or does not go with a folder.
        DataError: What the kind's reader raises.

    Example:
        >>> import tempfile
        >>> table = Path(tempfile.mkdtemp(), "pairs.jsonl")
        >>> _ = table.write_text('{"question": "how old", "document": "age()"}')
        >>> read_test_set(table, columns={"query": "question"})[0].obj_b
        'age()'
    """
    source = Path(path)
    if kind not in KINDS:
        raise ConfigError(f"unknown kind of test set {kind!r}; {nearest(kind, KINDS)}")
    if kind not in FOLDERS and any((source / name).is_file() for name in ("corpus.jsonl", "corpus.jsonl.gz")):
        kind = "beir"
    if kind == "beir":
        return read_beir(source, split)
    if kind in FOLDERS:
        return FOLDERS[kind](source)
    if not source.is_dir():
        return TABLES[kind](source, columns)
    if kind != "groups":
        raise ConfigError(
            f"{str(source)!r} is a folder: give one in BEIR's format (corpus.jsonl, queries.jsonl, qrels/), one of "
            f"images in a sub-folder a group with kind groups, or a benchmark's with kind {' or '.join(FOLDERS)}; got "
            f"kind {kind}"
        )
    return read_image_folder(source)
