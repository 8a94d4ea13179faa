"""What a retrieval test searches with, and what it searches in."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simtrain.data.columns import check_column, check_roles, column_names, flags, require
from simtrain.data.group_rows import GROUP_ROLES, item_root, labels_of, split_rows
from simtrain.data.label_names import LabelNames, number_labels, plain_label
from simtrain.data.table_items import TableItems
from simtrain.data.tables import SelectedRows, Table, is_blank
from simtrain.data.tabular import open_table
from simtrain.errors import DataError

QUERY_GALLERY_ROLES = {
    **GROUP_ROLES,
    "is_query": ("is_query",),
    "is_gallery": ("is_gallery",),
    "sequence": ("sequence",),
}


@dataclass(frozen=True, eq=False)
class QueryGallery:
    """A retrieval test: items to search with, items to search in, and which pairs do not count.

    Attributes:
        queries: Items that are searched with.
        gallery: Items that are searched in.
        query_labels: Group of each query; a gallery item of the same group is a match.
        gallery_labels: Group of each gallery item.
        query_ids: Which item each query is; a query never finds the gallery item with its own number. None: no query
            is in the gallery.
        gallery_ids: Which item each gallery item is, each number once; None as above.
        query_sequences: Track or series that each query comes from, -1 for none: gallery items of the same sequence
            are left out of its search, since a photo finds its neighbour in the burst too easily. None: none has one.
        gallery_sequences: The same for the gallery.
        label_names: Label that each group stands for.

    Raises:
        DataError: There is no query or no gallery, or an attribute has not one value an item.

    Example:
        >>> test = QueryGallery(["a"], ["a", "b"], [0], [0, 0], query_ids=[5], gallery_ids=[5, 6])
        >>> test.exclude(torch.tensor([0]), torch.tensor([0, 1]))
        tensor([[ True, False]])
    """

    queries: Sequence[Any]
    gallery: Sequence[Any]
    query_labels: Sequence[int]
    gallery_labels: Sequence[int]
    query_ids: Sequence[int] | None = None
    gallery_ids: Sequence[int] | None = None
    query_sequences: Sequence[int] | None = None
    gallery_sequences: Sequence[int] | None = None
    label_names: Mapping[int, Hashable] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for side, items in (("query", self.queries), ("gallery", self.gallery)):
            if not len(items):
                raise DataError(f"a retrieval test needs a {side} item at least, got none")
            for name in ("labels", "ids", "sequences"):
                values = getattr(self, f"{side}_{name}")
                if values is not None and len(values) != len(items):
                    raise DataError(f"{side}_{name} should have {len(items)} values, one an item, got {len(values)}")
        for name in ("ids", "sequences"):
            if (getattr(self, f"query_{name}") is None) != (getattr(self, f"gallery_{name}") is None):
                raise DataError(f"give query_{name} and gallery_{name}, or neither")

    @property
    def exclude(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """Function ``(query numbers, gallery numbers) -> booleans``, True where a pair does not count.

        It is what metrics take as ``exclude``. None where every pair counts.
        """
        if self.query_ids is None and self.query_sequences is None:
            return None
        return PairExclusion(
            _equalities(self.query_ids, self.gallery_ids) + _equalities(self.query_sequences, self.gallery_sequences)
        )


class PairExclusion:
    """Tells which pairs of query and gallery item share a number.

    Args:
        numbers: Numbers of the queries and of the gallery items, as often as there are kinds of numbers; -1 is shared
            with nobody.
    """

    def __init__(self, numbers: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.numbers = list(numbers)

    def __call__(self, queries: Tensor, gallery: Tensor) -> Tensor:
        """Booleans of shape ``(len(queries), len(gallery))`` on the device of ``queries``."""
        masks = []
        for of_queries, of_gallery in self.numbers:
            rows = of_queries.to(queries.device)[queries][:, None]
            masks.append((rows == of_gallery.to(queries.device)[gallery.to(queries.device)]) & (rows >= 0))
        return torch.stack(masks).any(dim=0)


def read_query_gallery(
    source: Any,
    split: str | None = "validation",
    columns: Mapping[str, str] | None = None,
    *,
    root: str | Path | None = None,
    label_names: LabelNames | None = None,
) -> QueryGallery:
    """Read a retrieval test from rows that say of themselves whether they are a query, in the gallery, or both.

    Args:
        source: A file, frame or other table; see :func:`read_records`.
        split: Take only rows whose column ``split`` says this; None for all.
        columns: Which column holds ``item``, ``group``, ``split``, ``is_query``, ``is_gallery`` and ``sequence``.
            Default: columns of these names, else ``path`` for the items and ``label`` for the groups, which makes
            the format of open-metric-learning. ``is_query`` and ``is_gallery`` hold booleans, 0 and 1, or texts
            that say so. ``sequence`` is optional; where it is empty, a row belongs to none.
        root: Folder that the items are paths in, see :func:`read_groups`.
        label_names: A mapping from number to label to use, see :class:`SimilarityGroupDataset`.

    Returns:
        Items and groups of both sides. A row on both sides does not find itself. Items are lists, except those of a
        Hugging Face data set, which are read when they are asked for.

    Raises:
        DataError: A column is missing, or a value in it, with source and row; there is no such split, no query, or no
            gallery.

    Example:
        >>> rows = [{"item": item, "group": 1, "is_query": item == "a", "is_gallery": True} for item in "ab"]
        >>> test = read_query_gallery(rows, split=None)
        >>> test.queries, test.gallery, test.gallery_labels
        (['a'], ['a', 'b'], [1, 1])
    """
    check_roles(columns, QUERY_GALLERY_ROLES)
    table = open_table(source)
    names = column_names(table, columns, QUERY_GALLERY_ROLES)
    table = table if split is None else split_rows(table, names["split"], split)
    require(table, [names[role] for role in ("item", "group", "is_query", "is_gallery")])
    folder = item_root(source, names["item"], root)
    labels, numbers = number_labels(labels_of(table, names["group"]), label_names)
    sequences = _sequences(table, names["sequence"])
    sides: dict[str, Any] = {}
    for side, role in (("query", "is_query"), ("gallery", "is_gallery")):
        rows = [row for row, wanted in enumerate(flags(table, names[role])) if wanted]
        if not rows:
            raise DataError(f"{table.name}: no row has a true {names[role]!r}, so that there is no {side} item")
        sides["queries" if side == "query" else side] = _items(table, names["item"], rows, folder)
        sides[f"{side}_labels"] = [labels[row] for row in rows]
        sides[f"{side}_ids"] = rows
        sides[f"{side}_sequences"] = sequences and [sequences[row] for row in rows]
    return QueryGallery(**sides, label_names=numbers)


def _items(table: Table, column: str, rows: Sequence[int], root: Path | None) -> Sequence[Any]:
    items = TableItems(SelectedRows(table, rows), column, root)
    return items if table.costly else list(items)


def _sequences(table: Table, column: str) -> list[int] | None:
    if column not in table.columns:
        return None
    check_column(table, column)
    values = [None if is_blank(value) else plain_label(value) for value in table.values(column)]
    known = {value: number for number, value in enumerate(dict.fromkeys(v for v in values if v is not None))}
    return [-1 if value is None else known[value] for value in values] if known else None


def _equalities(queries: Sequence[int] | None, gallery: Sequence[int] | None) -> list[tuple[Tensor, Tensor]]:
    if queries is None or gallery is None:
        return []
    return [(torch.tensor(queries, dtype=torch.long), torch.tensor(gallery, dtype=torch.long))]
