"""Samples from CSV and JSONL files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from simtrain.data.datasets import SimilarityGroupDataset, SimilarityPairDataset
from simtrain.data.samples import SimilarityPairSample
from simtrain.data.subgroups import shared_object_subgroups
from simtrain.errors import DataError, nearest

PAIR_COLUMNS = {"query": "query", "document": "document", "score": "score", "subgroup": "subgroup"}
GROUP_COLUMNS = {"item": "item", "group": "group"}


def read_records(path: str | Path, columns: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Read the rows of a CSV file (with a header line) or a JSONL file (one object a line).

    Args:
        path: A file whose name ends in ``.csv``, ``.jsonl`` or ``.ndjson``, UTF-8.
        columns: Names that every row must have, with a value that is not empty.

    Returns:
        One dict a row.

    Raises:
        DataError: The file is missing, of another kind, empty or malformed, or a row lacks a column.
    """
    return [row for _, row in _numbered_rows(Path(path), columns)]


def _numbered_rows(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, Any]]]:
    if not path.is_file():
        raise DataError(f"there is no data file {str(path)!r}; give the path of a .csv or .jsonl file")
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".ndjson": _jsonl_rows}
    if path.suffix.lower() not in readers:
        raise DataError(f"cannot tell how to read {str(path)!r}; its name should end in {', '.join(readers)}")
    rows = []
    try:
        for line, row in readers[path.suffix.lower()](path):
            _require(row, columns, path, line)
            rows.append((line, row))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from error
    if not rows:
        raise DataError(f"{path} has no rows; it should hold at least one")
    return rows


def read_pairs(path: str | Path, columns: Mapping[str, str] | None = None) -> SimilarityPairDataset:
    """Read pairs of query and document.

    Args:
        path: A CSV or JSONL file.
        columns: Which column holds ``query``, ``document``, ``score`` and ``subgroup``, where they are not named
            so. The last two are optional: without a score a pair is a match (1.0); without subgroups, pairs that
            share a query or a document get one (see :func:`shared_object_subgroups`).

    Returns:
        The pairs in the order of the file.

    Raises:
        DataError: A column is missing or a value has the wrong kind, with file and line.
    """
    names = _column_names(columns, PAIR_COLUMNS)
    rows = _numbered_rows(Path(path), (names["query"], names["document"]))
    queries = [_text(row, names["query"], path, line) for line, row in rows]
    documents = [_text(row, names["document"], path, line) for line, row in rows]
    subgroups = (
        [int(_number(row, names["subgroup"], path, line)) for line, row in rows]
        if _has_column(rows, names["subgroup"], path)
        else shared_object_subgroups(queries, documents)
    )
    scores = (
        [_number(row, names["score"], path, line) for line, row in rows]
        if _has_column(rows, names["score"], path)
        else [1.0] * len(rows)
    )
    parts = zip(queries, documents, scores, subgroups, strict=True)
    return SimilarityPairDataset([SimilarityPairSample(*part) for part in parts])


def read_groups(path: str | Path, columns: Mapping[str, str] | None = None) -> SimilarityGroupDataset:
    """Read items with a group label.

    Args:
        path: A CSV or JSONL file.
        columns: Which column holds ``item`` and ``group``, where they are not named so.

    Returns:
        The items in the order of the file; labels are numbered by first appearance unless all are integers.

    Raises:
        DataError: A column is missing, with file and line.
    """
    names = _column_names(columns, GROUP_COLUMNS)
    rows = read_records(path, (names["item"], names["group"]))
    return SimilarityGroupDataset([(row[names["item"]], row[names["group"]]) for row in rows])


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                if None in row:
                    raise DataError(f"{path}, line {reader.line_num}: the row has more fields than the header")
                yield reader.line_num, dict(row)
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: not valid CSV: {error}") from error


def _jsonl_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, line {line}: not valid JSON: {error}") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {line}: expected a JSON object, got {text.strip():.60}")
            yield line, row


def _require(row: Mapping[str, Any], columns: Sequence[str], path: Path, line: int) -> None:
    for column in columns:
        if column not in row:
            raise DataError(f"{path}, line {line}: there is no column {column!r}; {nearest(column, row)}")
        if row[column] is None or (isinstance(row[column], str) and not row[column].strip()):
            raise DataError(f"{path}, line {line}: the column {column!r} is empty; fill it or remove the row")


def _column_names(columns: Mapping[str, str] | None, known: Mapping[str, str]) -> dict[str, str]:
    for role in columns or {}:
        if role not in known:
            raise DataError(f"columns maps an unknown role {role!r}; {nearest(role, known)}")
    return {**known, **(columns or {})}


def _has_column(rows: Sequence[tuple[int, Mapping[str, Any]]], column: str, path: str | Path) -> bool:
    count = sum(row.get(column) not in (None, "") for _, row in rows)
    if 0 < count < len(rows):
        raise DataError(f"{path}: {len(rows) - count} of {len(rows)} rows lack the column {column!r}; give all or none")
    return count > 0


def _text(row: Mapping[str, Any], column: str, path: str | Path, line: int) -> str:
    value = row[column]
    if not isinstance(value, str):
        raise DataError(f"{path}, line {line}: the column {column!r} should hold a text, got {value!r:.60}")
    return value


def _number(row: Mapping[str, Any], column: str, path: str | Path, line: int) -> float:
    try:
        return float(row[column])
    except (TypeError, ValueError):
        raise DataError(
            f"{path}, line {line}: the column {column!r} should hold a number, got {row[column]!r:.60}"
        ) from None
