"""Items in a column of a table, read when they are asked for."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from simtrain.data.tables import Table


class TableItems(Sequence[Any]):
    """One column of a table as a sequence of items.

    Args:
        table: The rows.
        column: Where the items are.
        root: Folder that texts are paths in: items become :class:`pathlib.Path`, which encoders open and caches
            know by the file's size and time. None: texts stay texts.

    Example:
        >>> from simtrain.data.tabular import open_table
        >>> items = TableItems(open_table([{"path": "a.jpg"}, {"path": "b.jpg"}]), "path", Path("photos"))
        >>> len(items), items[1].as_posix()
        (2, 'photos/b.jpg')
    """

    def __init__(self, table: Table, column: str, root: Path | None = None) -> None:
        self.table = table
        self.column = column
        self.root = root

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[row] for row in range(len(self))[index]]
        item = self.table.value(range(len(self))[index], self.column)
        # An address on the net is no path, whatever the column is called.
        if self.root is None or not isinstance(item, str) or "://" in item:
            return item
        return self.root / item


class LabelledItems(Sequence[Any]):
    """Items with their labels, as ``(item, label)``.

    Args:
        items: The items.
        labels: One label an item.

    Attributes:
        targets: The labels, where torchvision's data sets have them too.
    """

    def __init__(self, items: Sequence[Any], labels: Sequence[Hashable]) -> None:
        self.items = items
        self.targets = labels

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[row] for row in range(len(self))[index]]
        return self.items[index], self.targets[index]
