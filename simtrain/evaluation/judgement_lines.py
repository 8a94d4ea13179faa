"""Files with a query, a document and a number in each line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOBase
from pathlib import Path
from typing import TypeVar

import numpy as np

from simtrain.errors import DataError
from simtrain.evaluation.query_lists import ListBuilder, QueryLists
from simtrain.evaluation.text_files import opened

Lists = TypeVar("Lists", bound=QueryLists)

#: Characters that are read at once.
_BLOCK = 1 << 22
_NEWLINE = ord("\n")
_IS_SPACE = np.array([chr(code).isspace() for code in range(256)])


@dataclass(frozen=True)
class LineFormat:
    """What a line of a file holds.

    Attributes:
        what: What the file holds, for messages.
        shape: A line in words, for messages.
        columns: Number of columns.
        query: Column of the query.
        document: Column of the document.
        number: Column of the score or grade.
        separator: What lies between columns; None for any white space.
        header: Whether the first line names the columns.
    """

    what: str
    shape: str
    columns: int
    query: int
    document: int
    number: int
    separator: str | None = None
    header: bool = False


def read_lists(kind: type[Lists], path: Path, form: LineFormat) -> Lists:
    """Read a file into lists by query; blank lines are passed over.

    Raises:
        DataError: The file is missing or empty, or a line is wrong; the message names it.
    """
    builder = ListBuilder(kind)
    try:
        with opened(path, form.what) as file:
            for first, text in _blocks(file, form):
                columns = _fast_columns(text, form) or _columns(path, first, text, form)
                builder.add(*columns[:2], np.fromiter(map(float, columns[2]), np.float64))
        lists = builder.lists()
    except (DataError, ValueError) as error:
        raise DataError(_wrong_entry(path, form, kind) or str(error)) from None
    if not len(lists):
        raise DataError(f"{path} is empty; {form.what} has lines of: {form.shape}")
    return lists


def _blocks(file: TextIOBase, form: LineFormat) -> Iterator[tuple[int, str]]:
    """Whole lines, many at once, with the number of the first."""
    first = 1
    if form.header:
        file.readline()
        first = 2
    while text := file.read(_BLOCK) + file.readline():
        yield first, text
        first += text.count("\n")


def _fast_columns(text: str, form: LineFormat) -> tuple[list[str], list[str], list[str]] | None:
    """Columns of a block that is plain and whole: one split for all of its lines; None where it is not."""
    if form.separator is not None or not text.isascii():
        return None
    space = _IS_SPACE[np.frombuffer(text.encode("ascii"), dtype=np.uint8)]
    begins = np.empty(len(space), dtype=bool)
    begins[0] = not space[0]
    np.greater(space[:-1], space[1:], out=begins[1:])
    ends = np.flatnonzero(np.frombuffer(text.encode("ascii"), dtype=np.uint8) == _NEWLINE)
    starts = np.concatenate([[0], ends + 1])
    starts = starts[starts < len(text)]
    if np.any(np.add.reduceat(begins, starts, dtype=np.int64) != form.columns):
        return None
    fields = text.split()
    query, document, number = (fields[column :: form.columns] for column in (form.query, form.document, form.number))
    return query, document, number


def _columns(path: Path, first: int, text: str, form: LineFormat) -> tuple[list[str], list[str], list[str]]:
    rows = [row for row in (line.split(form.separator) for line in text.split("\n")) if any(row)]
    if {*map(len, rows)} - {form.columns}:
        _check_columns(path, first, text.split("\n"), form)
    query, document, number = ([row[column] for row in rows] for column in (form.query, form.document, form.number))
    return query, document, number


def _check_columns(path: Path, first: int, lines: list[str], form: LineFormat) -> None:
    for number, line in enumerate(lines, first):
        found = line.split(form.separator)
        if any(found) and len(found) != form.columns:
            raise DataError(
                f"{path}, line {number}: a line of {form.what} has {form.columns} columns ({form.shape}), "
                f"got {len(found)}: {line.rstrip()!r:.100}"
            )


def _wrong_entry(path: Path, form: LineFormat, kind: type[QueryLists]) -> str:
    """Which line holds what cannot be taken: no number, one of the wrong kind, or a document for the second time."""
    known: set[tuple[str, str]] = set()
    with opened(path, form.what) as file:
        for number, line in enumerate(file, 1):
            row = line.rstrip("\n").split(form.separator)
            if not any(row) or (form.header and number == 1):
                continue
            if len(row) != form.columns:
                break  # said by its own message
            query, document = row[form.query], row[form.document]
            try:
                kind.from_columns([query], [document], np.array([float(row[form.number])]))
            except DataError as error:
                return f"{path}, line {number}: {error}"
            except ValueError:
                return f"{path}, line {number}: {row[form.number]!r} is no number; a line is: {form.shape}"
            if (query, document) in known:
                return f"{path}, line {number}: query {query!r} has the document {document!r} twice"
            known.add((query, document))
    return ""
