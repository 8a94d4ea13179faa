"""What a switch of encoders does with raw items; small objects that can go to loader workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from simtrain.encoders.encoder import CollateFn, SideFn
from simtrain.encoders.item_error import ItemError
from simtrain.errors import nearest

Selection = Callable[[Any], str]


def sorted_out(items: Sequence[Any], selection: Selection, names: Sequence[str]) -> dict[str, list[int]]:
    """Positions of the items of each name; names without items are left out.

    Raises:
        ItemError: ``selection`` gives a name that is none of ``names``.

    Example:
        >>> sorted_out(["a", "bb", "c"], lambda text: "short" if len(text) == 1 else "long", ["long", "short"])
        {'long': [1], 'short': [0, 2]}
    """
    chosen = [selection(item) for item in items]
    for position, name in enumerate(chosen):
        if name not in names:
            given = f"({type(items[position]).__name__} {items[position]!r:.60})"
            raise ItemError(position, f"{given} asks for the unknown encoder {name!r}; {nearest(str(name), names)}")
    positions = {name: [i for i, each in enumerate(chosen) if each == name] for name in names}
    return {name: rows for name, rows in positions.items() if rows}


@dataclass(frozen=True)
class SwitchCollate:
    """Collates the items of each encoder apart.

    Args:
        selection: From an item to the name of its encoder.
        collates: Collate function of each encoder.
    """

    selection: Selection
    collates: Mapping[str, CollateFn]

    def __call__(self, items: Sequence[Any]) -> dict[str, Any]:
        """Collate a mixed batch.

        Returns:
            ``{"ordering": {name: int64 positions in the batch}, "batches": {name: collated items}}``, of the
            encoders that have items in the batch.

        Raises:
            ItemError: An item asks for an unknown encoder, or its encoder cannot take it.
        """
        rows = sorted_out(items, self.selection, list(self.collates))
        batches = {name: self._collated(name, [items[i] for i in rows[name]], rows[name]) for name in rows}
        return {"ordering": {name: torch.tensor(rows[name]) for name in rows}, "batches": batches}

    def _collated(self, name: str, items: list[Any], rows: list[int]) -> Any:
        try:
            return self.collates[name](items)
        except ItemError as error:
            # The encoder counted among its own items.
            raise ItemError(rows[error.position], error.reason) from error


@dataclass(frozen=True)
class SwitchMeta:
    """Says of each item which encoder it takes.

    Args:
        selection: From an item to the name of its encoder.
        names: The encoders.
    """

    selection: Selection
    names: Sequence[str]

    def __call__(self, items: Sequence[Any]) -> list[dict[str, Any]]:
        """Return ``{"encoder": name}`` for each item.

        Raises:
            ItemError: An item asks for an unknown encoder.
        """
        rows = sorted_out(items, self.selection, self.names)
        names = {i: name for name in rows for i in rows[name]}
        return [{"encoder": names[i]} for i in range(len(items))]


@dataclass(frozen=True)
class SwitchSides:
    """Marks each item by its side as its encoder does.

    Args:
        selection: From an item to the name of its encoder.
        side_fns: The encoders' functions; one without any leaves its items as they are.
    """

    selection: Selection
    side_fns: Mapping[str, SideFn | None]

    def __call__(self, items: Sequence[Any], sides: Sequence[int]) -> list[Any]:
        """Mark the items, given the codes of their sides.

        Raises:
            ItemError: An item asks for an unknown encoder.
        """
        marked = list(items)
        for name, rows in sorted_out(items, self.selection, list(self.side_fns)).items():
            mark = self.side_fns[name]
            if mark is not None:
                of_name = mark([items[i] for i in rows], [sides[i] for i in rows])
                for i, item in zip(rows, of_name, strict=True):
                    marked[i] = item
        return marked
