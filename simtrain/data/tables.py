"""Rows with named columns, whatever holds them: read column by column, cell by cell, and never changed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_CHUNK = 1000


class Table(ABC):
    """Rows with named columns.

    Attributes:
        name: What messages call it.
        columns: Names of the columns.
        costly: Whether asking for a cell may be slow or give a large object, so that cells are read when needed.
        typed: Whether a cell knows what it is; in a CSV file, numbers are texts like all others.
    """

    name: str
    columns: Sequence[str]
    costly: bool = False
    typed: bool = True

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def values(self, column: str) -> Iterator[Any]:
        """The plain values of a column, one a row; where there is none, something that :func:`is_blank` knows."""

    @abstractmethod
    def value(self, row: int, column: str) -> Any:
        """One cell, as the owner of the table would get it."""

    def place(self, row: int) -> str:
        """What messages call a row."""
        return f"{self.name}, row {row}"

    def has(self, row: int, column: str) -> bool:
        """Whether a row has the column, filled or not."""
        return column in self.columns

    def blanks(self, column: str) -> Iterator[bool]:
        """Whether a cell is empty, one a row."""
        return map(is_blank, self.values(column))

    def record(self, row: int) -> dict[str, Any]:
        """One row as a dict."""
        return {column: self.value(row, column) for column in self.columns if self.has(row, column)}


class RowTable(Table):
    """Mappings, one a row: a list of them, or what a CSV or JSONL file gave.

    Args:
        name: What messages call it.
        rows: The mappings.
        lines: Number of the line that each row ended on, for a file.
        typed: Whether a cell knows what it is.
    """

    def __init__(
        self, name: str, rows: Sequence[Mapping[str, Any]], lines: Sequence[int] | None = None, typed: bool = True
    ) -> None:
        self.name = name
        self.typed = typed
        self.rows = rows
        self.lines = lines
        self.columns = list(dict.fromkeys(column for row in rows for column in row))

    def __len__(self) -> int:
        return len(self.rows)

    def values(self, column: str) -> Iterator[Any]:
        """The plain values of a column."""
        return (row.get(column) for row in self.rows)

    def value(self, row: int, column: str) -> Any:
        """One cell."""
        return self.rows[row].get(column)

    def place(self, row: int) -> str:
        """What messages call a row."""
        return super().place(row) if self.lines is None else f"{self.name}, line {self.lines[row]}"

    def has(self, row: int, column: str) -> bool:
        """Whether a row has the column."""
        return column in self.rows[row]

    def record(self, row: int) -> dict[str, Any]:
        """One row as a dict."""
        return dict(self.rows[row])


class FrameTable(Table):
    """A pandas frame; rows are counted from 0, whatever its index says."""

    def __init__(self, name: str, frame: Any) -> None:
        self.name = name
        self.columns = [str(column) for column in frame.columns]
        self._frame = frame
        self._arrays: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._frame)

    def values(self, column: str) -> Iterator[Any]:
        """The plain values of a column."""
        series = self._series(column)
        for value, missing in zip(series.tolist(), series.isna().tolist(), strict=True):
            yield None if missing else value

    def value(self, row: int, column: str) -> Any:
        """One cell."""
        if column not in self._arrays:
            self._arrays[column] = self._series(column).array
        value = self._arrays[column][row]
        return value.item() if hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0 else value

    def _series(self, column: str) -> Any:
        # By place, not by name: the name may be a number.
        return self._frame.iloc[:, self.columns.index(column)]


class ArrowTable(Table):
    """A pyarrow table; its cells become Python objects when they are asked for."""

    def __init__(self, name: str, table: Any) -> None:
        self.name = name
        self.columns = list(table.column_names)
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def values(self, column: str) -> Iterator[Any]:
        """The plain values of a column."""
        for chunk in self.array(column).iterchunks():
            yield from chunk.to_pylist()

    def value(self, row: int, column: str) -> Any:
        """One cell."""
        return self.array(column)[row].as_py()

    def blanks(self, column: str) -> Iterator[bool]:
        """Whether a cell is empty, one a row."""
        for chunk in self.array(column).iterchunks():
            yield from blank_cells(chunk)

    def array(self, column: str) -> Any:
        """The column as pyarrow has it."""
        return self._table.column(column)


class HubTable(Table):
    """A Hugging Face data set. Cells come as it gives them (images decoded, transforms applied), and only when needed.

    Labels, and whether a cell is empty, are read from the stored columns, past its format and transforms.
    """

    costly = True

    def __init__(self, name: str, dataset: Any) -> None:
        self.name = name
        self.columns = list(dataset.column_names)
        self._dataset = dataset
        self._views: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._dataset)

    def values(self, column: str) -> Iterator[Any]:
        """The plain values of a column."""
        for chunk in self._chunks(column):
            yield from chunk.to_pylist()

    def value(self, row: int, column: str) -> Any:
        """One cell."""
        if column not in self._views:
            # Only this column is decoded; a transform of the user's own may need the others too.
            own = self._dataset.format["type"] == "custom"
            self._views[column] = self._dataset if own else self._dataset.select_columns([column])
        return self._views[column][row][column]

    def blanks(self, column: str) -> Iterator[bool]:
        """Whether a cell is empty, one a row."""
        for chunk in self._chunks(column):
            yield from blank_cells(chunk)

    def _chunks(self, column: str) -> Iterator[Any]:
        for batch in self._dataset.with_format("arrow").select_columns([column]).iter(batch_size=_CHUNK):
            yield from batch.column(column).iterchunks()


class SelectedRows(Table):
    """Some rows of a table; messages call them as the whole table does."""

    def __init__(self, table: Table, rows: Sequence[int]) -> None:
        self.name = table.name
        self.columns = table.columns
        self.costly = table.costly
        self.typed = table.typed
        self.table = table
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def values(self, column: str) -> Iterator[Any]:
        """The plain values of a column."""
        return self._selected(self.table.values(column))

    def value(self, row: int, column: str) -> Any:
        """One cell."""
        return self.table.value(self.rows[row], column)

    def place(self, row: int) -> str:
        """What messages call a row."""
        return self.table.place(self.rows[row])

    def has(self, row: int, column: str) -> bool:
        """Whether a row has the column."""
        return self.table.has(self.rows[row], column)

    def blanks(self, column: str) -> Iterator[bool]:
        """Whether a cell is empty, one a row."""
        return self._selected(self.table.blanks(column))

    def _selected(self, values: Iterator[Any]) -> Iterator[Any]:
        wanted = set(self.rows)
        return (value for row, value in enumerate(values) if row in wanted)


def is_blank(value: Any) -> bool:
    """Whether a cell holds nothing: None, NaN, or a text without a letter.

    Example:
        >>> [is_blank(value) for value in (None, float("nan"), " ", 0, "a")]
        [True, True, True, False, False]
    """
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and value != value)


def blank_cells(array: Any) -> list[bool]:
    """Whether each cell of a pyarrow array is blank; images and other large cells are not made Python objects."""
    if str(array.type).endswith(("string", "string_view")) or str(array.type).startswith("dictionary"):
        return [is_blank(value) for value in array.to_pylist()]
    return list(array.is_null(nan_is_null=True).to_pylist())
