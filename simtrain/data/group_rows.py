"""Rows of items with groups: which rows, which labels, and where their files lie."""

from __future__ import annotations

import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from simtrain.data.columns import check_column
from simtrain.data.label_names import integers_of_texts, plain_label
from simtrain.data.tables import SelectedRows, Table, is_blank
from simtrain.errors import DataError, nearest

#: Our names first, then those of open-metric-learning.
GROUP_ROLES = {"item": ("item", "path"), "group": ("group", "label"), "split": ("split",)}
#: Asks for the rows of every split.
ALL = "all"


def split_rows(table: Table, column: str, split: str | None) -> Table:
    """The rows of one split.

    Raises:
        DataError: The split is not there, or none is named although there are several.
    """
    if split is None and column not in table.columns:
        return table
    if column not in table.columns:
        raise DataError(
            f"{table.name} has no column {column!r} to take the split {split!r} from; name it with columns, or pass "
            "split=None for all rows"
        )
    check_column(table, column)
    marks = ["" if is_blank(mark) else str(mark) for mark in table.values(column)]
    names = sorted(set(marks))
    if split is None and len(names) > 1:
        listed = ", ".join(repr(name) for name in names[:5])
        raise DataError(f"{table.name} holds several splits ({listed}); pass split=..., or split={ALL!r} for all rows")
    if split is None or (split == ALL and split not in names):
        return table
    if split not in names:
        raise DataError(f"{table.name} has no row of the split {split!r}; {nearest(split, names)}")
    return SelectedRows(table, [row for row, mark in enumerate(marks) if mark == split])


def labels_of(table: Table, column: str) -> list[Hashable]:
    """The labels of the rows; an unusable one is named with its row.

    In a file without types, labels are integers where all of the column are written so, whatever rows are asked for.
    """
    if not table.typed:
        whole = table
        while isinstance(whole, SelectedRows):
            whole = whole.table
        filled = [value for value in whole.values(column) if not is_blank(value)]
        if integers_of_texts(filled) != filled:
            return integers_of_texts(list(table.values(column)))
    labels = []
    for row, value in enumerate(table.values(column)):
        try:
            labels.append(plain_label(value))
        except DataError as error:
            raise DataError(f"{table.place(row)}: the column {column!r}: {error}") from None
    return labels


def item_root(source: Any, column: str, root: str | Path | None) -> Path | None:
    """Folder that items are paths in; None where they are no paths."""
    if root is not None:
        return Path(root)
    if column != "path":
        return None
    return Path(source).parent if isinstance(source, (str, os.PathLike)) else Path()
