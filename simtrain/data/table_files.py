"""Tables in files: CSV, TSV and JSONL, also gzipped, and Parquet."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO, cast

from simtrain.data.tables import ArrowTable, RowTable, Table
from simtrain.errors import DataError, import_extra

NumberedRows = Iterator[tuple[int, Mapping[str, Any]]]


def read_table(path: Path) -> Table:
    """Open a file of rows.

    Args:
        path: Its name ends in ``.csv``, ``.tsv``, ``.jsonl`` or ``.ndjson`` (UTF-8; ``.gz`` after it where it is
            gzipped), or ``.parquet``.

    Raises:
        DataError: The file is missing, of another kind or malformed; the message gives the line.
        MissingExtraError: It is a Parquet file, and pyarrow is not installed.
    """
    kind = _kind(path)
    if not path.is_file():
        where = "" if path.is_absolute() else f" in {str(Path.cwd())!r}"
        raise DataError(f"there is no data file {str(path)!r}{where}; give the path of a {_accepted()} file")
    return ParquetTable(path) if kind == ".parquet" else _text_table(path, _TEXT_READERS[kind])


class ParquetTable(ArrowTable):
    """A Parquet file; a column is read from it when it is first asked for."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        schema = self._read("read_schema")
        self.columns = list(schema.names)
        self._length = int(self._read("read_metadata").num_rows)
        self._arrays: dict[str, Any] = {}

    def __len__(self) -> int:
        return self._length

    def array(self, column: str) -> Any:
        """The column as pyarrow has it."""
        if column not in self._arrays:
            # A file, not a data set of files: a folder called split=train would add a column.
            self._arrays[column] = self._read("read_table", columns=[column], partitioning=None).column(column)
        return self._arrays[column]

    def _read(self, function: str, **options: Any) -> Any:
        parquet = import_extra("pyarrow.parquet", "data")
        try:
            return getattr(parquet, function)(self._path, **options)
        except (ValueError, OSError) as error:
            raise DataError(f"{self._path} is not a valid Parquet file: {error}") from error


def _kind(path: Path) -> str:
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    if suffix in _TEXT_READERS or (suffix == ".parquet" and name.endswith(suffix)):
        return suffix
    raise DataError(f"cannot tell how to read {str(path)!r}; its name should end in {_accepted()}")


def _accepted() -> str:
    return f"{', '.join(_TEXT_READERS)} (also with .gz) or .parquet"


def _text_table(path: Path, reader: Callable[[Path, Iterable[str]], NumberedRows]) -> RowTable:
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with cast("TextIO", opened(path, "rt", encoding="utf-8-sig", newline="")) as file:
            numbered = list(reader(path, file))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a valid gzip file: {error}") from error
    typed = reader is _jsonl_rows
    return RowTable(str(path), [row for _, row in numbered], [line for line, _ in numbered], typed)


def _csv_rows(path: Path, file: Iterable[str], delimiter: str = ",") -> NumberedRows:
    reader = csv.reader(file, strict=True, delimiter=delimiter)
    try:
        header = next((fields for fields in reader if fields), [])
        _check_header(header, path)
        for fields in reader:
            if len(fields) not in (0, len(header)):
                raise DataError(_ragged(path, reader.line_num, fields, header))
            if fields:
                yield reader.line_num, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not valid CSV: {error}") from error


def _tsv_rows(path: Path, file: Iterable[str]) -> NumberedRows:
    return _csv_rows(path, file, "\t")


def _check_header(header: list[str], path: Path) -> None:
    twice = next((column for column in header if header.count(column) > 1), None)
    if twice is not None:
        raise DataError(f"{path}, line 1: the header names the column {twice!r} twice; rename one")


def _ragged(path: Path, line: int, fields: list[str], header: list[str]) -> str:
    more = "more" if len(fields) > len(header) else "fewer"
    return (
        f"{path}, line {line}: the row has {more} fields than the header, {len(fields)} and not {len(header)}; "
        "a text with a delimiter or a line break in it needs quotes"
    )


def _jsonl_rows(path: Path, file: Iterable[str]) -> NumberedRows:
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{path}, line {line}: not valid JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {line}: expected a JSON object, got {text.strip():.60}")
        yield line, row


_TEXT_READERS: dict[str, Callable[[Path, Iterable[str]], NumberedRows]] = {
    ".csv": _csv_rows,
    ".tsv": _tsv_rows,
    ".jsonl": _jsonl_rows,
    ".ndjson": _jsonl_rows,
}
