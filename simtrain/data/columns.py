"""Which column plays which part, and columns of one kind of value, with errors that name the row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from simtrain.data.tables import RowTable, Table, is_blank
from simtrain.errors import DataError, nearest

#: Part → the names that its column may have, the preferred one first.
Roles = Mapping[str, Sequence[str]]

_TRUE, _FALSE = ("true", "1", "1.0"), ("false", "0", "0.0")


def check_roles(columns: Mapping[str, Any] | None, roles: Roles) -> None:
    """Refuse a mapping from parts to columns that names an unknown part."""
    for role in columns or {}:
        if role not in roles:
            raise DataError(f"columns maps an unknown role {role!r}; {nearest(role, roles)}")


def column_names(table: Table, columns: Mapping[str, str] | None, roles: Roles) -> dict[str, str]:
    """Name the column of each part: as ``columns`` says, else the first name that the table has.

    Example:
        >>> from simtrain.data.tabular import open_table
        >>> column_names(open_table([{"path": "a.jpg"}]), None, {"item": ("item", "path")})
        {'item': 'path'}
    """
    given = columns or {}
    there = {role: next((name for name in names if name in table.columns), names[0]) for role, names in roles.items()}
    return {**there, **given}


def require(table: Table, columns: Sequence[str]) -> None:
    """Raise a :class:`DataError` where a row lacks one of the columns or has nothing in it."""
    for column in columns:
        check_column(table, column)
    # Row by row, so that the first wrong row is the one that is named.
    blanks = [table.blanks(column) for column in columns]
    for row, flags in enumerate(zip(*blanks, strict=True)):
        for column, blank in zip(columns, flags, strict=True):
            if blank:
                _refuse_blank(table, row, column)


def check_column(table: Table, column: str) -> None:
    """Raise a :class:`DataError` where a table has no such column, or two of that name."""
    if column not in table.columns:
        where = table.place(0) if isinstance(table, RowTable) else table.name
        raise DataError(f"{where}: there is no column {column!r}; {nearest(column, map(str, table.columns))}")
    if list(table.columns).count(column) > 1:
        raise DataError(f"{table.name} has two columns called {column!r}; rename one")


def has_column(table: Table, column: str) -> bool:
    """Whether a column is there and filled.

    Raises:
        DataError: It is filled in some rows only.
    """
    if column not in table.columns:
        return False
    check_column(table, column)
    missing = sum(table.blanks(column))
    if 0 < missing < len(table):
        raise DataError(f"{table.name}: {missing} of {len(table)} rows lack the column {column!r}; give all or none")
    return missing == 0


def texts(table: Table, column: str) -> list[str]:
    """A column of texts."""
    return [_text(value, table, row, column) for row, value in _filled(table, column)]


def numbers(table: Table, column: str) -> list[float]:
    """A column of numbers, or of texts that say one."""
    return [_number(value, table, row, column) for row, value in _filled(table, column)]


def whole_numbers(table: Table, column: str) -> list[int]:
    """A column of whole numbers, exact also where they are large, or of texts that say one."""
    return [_whole_number(value, table, row, column) for row, value in _filled(table, column)]


def flags(table: Table, column: str) -> list[bool]:
    """A column of truth values: booleans, 0 and 1, or texts that say so."""
    return [_flag(value, table, row, column) for row, value in _filled(table, column)]


def _filled(table: Table, column: str) -> Iterator[tuple[int, Any]]:
    check_column(table, column)
    for row, value in enumerate(table.values(column)):
        if is_blank(value):
            _refuse_blank(table, row, column)
        yield row, value


def _refuse_blank(table: Table, row: int, column: str) -> NoReturn:
    if not table.has(row, column):
        known = nearest(column, map(str, table.record(row)))
        raise DataError(f"{table.place(row)}: there is no column {column!r}; {known}")
    raise DataError(f"{table.place(row)}: the column {column!r} is empty; fill it or remove the row")


def _text(value: Any, table: Table, row: int, column: str) -> str:
    if not isinstance(value, str):
        _refuse(value, table, row, column, "a text")
    return value


def _number(value: Any, table: Table, row: int, column: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        _refuse(value, table, row, column, "a number")
    return number if math.isfinite(number) else _refuse(value, table, row, column, "a finite number")


def _whole_number(value: Any, table: Table, row: int, column: str) -> int:
    if isinstance(value, int):
        return value
    try:
        # Not by way of a float where it can be helped: large numbers would lose their last digits.
        return int(value) if isinstance(value, str) else int(str(value).removesuffix(".0"))
    except ValueError:
        _refuse(value, table, row, column, "a whole number")


def _flag(value: Any, table: Table, row: int, column: str) -> bool:
    word = str(value).strip().lower()
    if word not in _TRUE + _FALSE:
        _refuse(value, table, row, column, "true or false")
    return word in _TRUE


def _refuse(value: Any, table: Table, row: int, column: str, wanted: str) -> NoReturn:
    raise DataError(f"{table.place(row)}: the column {column!r} should hold {wanted}, got {value!r:.60}")
