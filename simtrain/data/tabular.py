"""The one door to tables: files, frames, Hugging Face data sets, Arrow tables and lists of mappings.

Objects are told apart by what they can do; pandas, pyarrow and datasets are not imported to look at them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from simtrain.data.table_files import read_table
from simtrain.data.tables import ArrowTable, FrameTable, HubTable, RowTable, Table
from simtrain.errors import DataError, import_extra

_ACCEPTED = "a path, a pandas frame, a pyarrow table, a Hugging Face data set or a list of mappings"


def open_table(source: Any) -> Table:
    """See a source as rows with named columns, without copying it.

    Args:
        source: Path of a ``.csv``, ``.tsv``, ``.jsonl``, ``.ndjson`` (each also with ``.gz``) or ``.parquet`` file;
            a pandas frame; a Hugging Face ``datasets.Dataset``; a pyarrow table, or anything that hands over Arrow
            data (polars, duckdb); or mappings, one a row.

    Raises:
        DataError: It is none of these, malformed, or has no rows.

    Example:
        >>> table = open_table([{"item": "red shoe", "group": "shoes"}])
        >>> table.columns, list(table.values("group"))
        (['item', 'group'], ['shoes'])
    """
    table = _opened(source)
    if not len(table):
        raise DataError(f"{table.name} has no rows; it should hold at least one")
    return table


def _opened(source: Any) -> Table:
    if isinstance(source, (str, os.PathLike)):
        return read_table(Path(source))
    if hasattr(source, "iloc") and hasattr(source, "columns"):
        return FrameTable("the pandas frame", source)
    if hasattr(source, "select_columns") and hasattr(source, "features"):
        return _hub_table(source)
    if hasattr(source, "__arrow_c_stream__"):
        return ArrowTable(f"the {type(source).__name__}", import_extra("pyarrow", "data").table(source))
    if isinstance(source, Mapping):
        raise DataError(_of_mapping(source))
    if isinstance(source, Iterable):
        return _row_table(source)
    raise DataError(f"data should be {_ACCEPTED}, got {type(source).__name__}")


def _hub_table(dataset: Any) -> HubTable:
    if not hasattr(dataset, "__len__"):
        raise DataError(
            "a streamed data set cannot be read twice or counted; make it a data set of samples with "
            "SimilarityIterableDataset, or load it without streaming=True"
        )
    return HubTable("the Hugging Face data set", dataset)


def _of_mapping(source: Mapping[Any, Any]) -> str:
    names = ", ".join(repr(name) for name in list(source)[:5])
    if all(hasattr(value, "column_names") for value in source.values()) and source:
        return f"this is a collection of data sets ({names}); give one of them"
    return f"a mapping of columns ({names}) is no table; give mappings one a row, or pandas.DataFrame(...) of it"


def _row_table(source: Iterable[Any]) -> RowTable:
    rows = source if isinstance(source, (list, tuple)) else list(source)
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(f"data should be {_ACCEPTED}; row {number} is a {type(row).__name__}: {row!r:.60}")
    return RowTable("the list of rows", rows)
