"""Triplets from files, frames and other tables."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from simtrain.data.columns import check_column, check_roles, column_names, require, texts
from simtrain.data.datasets import SimilarityTripletDataset
from simtrain.data.samples import SimilarityTripletSample
from simtrain.data.tables import Table, is_blank
from simtrain.data.tabular import open_table
from simtrain.errors import DataError

TRIPLET_ROLES = {"anchor": ("anchor",), "positive": ("positive",), "negative": ("negative",)}


def read_triplets(source: Any, columns: Mapping[str, str | Sequence[str]] | None = None) -> SimilarityTripletDataset:
    """Read triplets of texts: an anchor, a match, and one or more that do not match.

    Args:
        source: A file, frame or other table; see :func:`read_pairs`.
        columns: Which column holds ``anchor``, ``positive`` and ``negative``, the last one column or a list of them.
            Default: columns of these names; for the negatives all that are there of ``negative``, ``negative_1``,
            ``negative_2``, ... and ``negatives``.

    Returns:
        The triplets in the order of the rows. A cell of negatives holds a text, or a list of texts (in CSV a JSON
        list); an empty one is passed over as long as the row has another.

    Raises:
        DataError: A column is missing, a row has no negative, or a value is no text, with source and row.

    Example:
        >>> rows = [{"anchor": "king", "positive": "queen", "negative_1": "chair", "negative_2": "table"}]
        >>> read_triplets(rows)[0].negatives
        ['chair', 'table']
    """
    check_roles(columns, TRIPLET_ROLES)
    table = open_table(source)
    single = {role: name for role, name in (columns or {}).items() if isinstance(name, str)}
    names = column_names(table, single, TRIPLET_ROLES)
    require(table, (names["anchor"], names["positive"]))
    parts = zip(
        texts(table, names["anchor"]),
        texts(table, names["positive"]),
        _negatives(table, _negative_columns(table, (columns or {}).get("negative"))),
        strict=True,
    )
    return SimilarityTripletDataset([SimilarityTripletSample(*part) for part in parts])


def _negative_columns(table: Table, given: str | Sequence[str] | None) -> list[str]:
    if given is not None:
        return [given] if isinstance(given, str) else list(given)
    numbered = [column for column in table.columns if re.fullmatch(r"negative_\d+", column)]
    numbered.sort(key=lambda column: int(column.removeprefix("negative_")))
    found = [column for column in ("negative", *numbered, "negatives") if column in table.columns]
    return found or ["negative"]


def _negatives(table: Table, columns: Sequence[str]) -> list[list[str]]:
    rows: list[list[str]] = [[] for _ in range(len(table))]
    for column in columns:
        check_column(table, column)
        for row, cell in enumerate(table.values(column)):
            rows[row] += _cell_texts(cell, table, row, column)
    for row, negatives in enumerate(rows):
        if not negatives:
            listed = ", ".join(repr(column) for column in columns)
            raise DataError(f"{table.place(row)}: there is no negative in {listed}; fill one or remove the row")
    return rows


def _cell_texts(cell: Any, table: Table, row: int, column: str) -> list[str]:
    items = list(cell) if isinstance(cell, (list, tuple)) or hasattr(cell, "tolist") else _of_text(cell, column)
    for item in items:
        if not isinstance(item, str) or is_blank(item):
            raise DataError(
                f"{table.place(row)}: the column {column!r} should hold a text or a list of texts, got {item!r:.60}"
            )
    return items


def _of_text(cell: Any, column: str) -> list[Any]:
    if is_blank(cell):
        return []
    # CSV has no lists: its cells hold them as JSON.
    if column == "negatives" and isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            return list(json.loads(cell))
        except json.JSONDecodeError:
            return [cell]
    return [cell]
