"""Samples from files, frames and other tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simtrain.data.columns import (
    check_roles,
    column_names,
    has_column,
    numbers,
    require,
    texts,
    whole_numbers,
)
from simtrain.data.datasets import SimilarityGroupDataset, SimilarityPairDataset
from simtrain.data.group_rows import GROUP_ROLES, item_root, labels_of, split_rows
from simtrain.data.image_check import OnError, check_images
from simtrain.data.label_names import LabelNames
from simtrain.data.samples import SimilarityPairSample
from simtrain.data.subgroups import shared_object_subgroups
from simtrain.data.table_items import LabelledItems, TableItems
from simtrain.data.tables import SelectedRows
from simtrain.data.tabular import open_table

PAIR_ROLES = {"query": ("query",), "document": ("document",), "score": ("score",), "subgroup": ("subgroup",)}


def read_records(source: Any, columns: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Read rows with named columns.

    Args:
        source: Path of a CSV or TSV file (with a header line) or a JSONL file (one object a line), UTF-8, gzipped
            where its name ends in ``.gz``; path of a Parquet file; a pandas frame; a pyarrow table; a Hugging Face
            data set; or a list of mappings.
        columns: Names that every row must have, with a value that is not empty.

    Returns:
        One dict a row.

    Raises:
        DataError: The source is missing, of another kind, empty or malformed, or a row lacks a column. Rows of files
            of text are named by their line, others are counted from 0.
        MissingExtraError: It is a Parquet file, and pyarrow is not installed.

    Example:
        >>> read_records([{"text": "red shoe", "price": 3}], ["text"])
        [{'text': 'red shoe', 'price': 3}]
    """
    table = open_table(source)
    require(table, columns)
    return [table.record(row) for row in range(len(table))]


def read_pairs(source: Any, columns: Mapping[str, str] | None = None) -> SimilarityPairDataset:
    """Read pairs of query and document, both texts.

    Args:
        source: A file, frame or other table; see :func:`read_records`. Texts of a Hugging Face data set are taken
            as they are stored, past its transforms.
        columns: Which column holds ``query``, ``document``, ``score`` and ``subgroup``, where they are not named
            so. The last two are optional: without a score a pair is a match (1.0); without subgroups, pairs that
            share a query or a document get one (see :func:`shared_object_subgroups`).

    Returns:
        The pairs in the order of the rows.

    Raises:
        DataError: A column is missing or a value has the wrong kind, with source and row.

    Example:
        >>> read_pairs([{"query": "how old", "document": "age()"}])[0].obj_b
        'age()'
    """
    check_roles(columns, PAIR_ROLES)
    table = open_table(source)
    names = column_names(table, columns, PAIR_ROLES)
    require(table, (names["query"], names["document"]))
    queries, documents = texts(table, names["query"]), texts(table, names["document"])
    subgroups = (
        whole_numbers(table, names["subgroup"])
        if has_column(table, names["subgroup"])
        else shared_object_subgroups(queries, documents)
    )
    scores = numbers(table, names["score"]) if has_column(table, names["score"]) else [1.0] * len(table)
    parts = zip(queries, documents, scores, subgroups, strict=True)
    return SimilarityPairDataset([SimilarityPairSample(*part) for part in parts])


def read_groups(
    source: Any,
    columns: Mapping[str, str] | None = None,
    *,
    split: str | None = None,
    root: str | Path | None = None,
    label_names: LabelNames | None = None,
    on_error: OnError | None = None,
    decode: bool | None = None,
) -> SimilarityGroupDataset:
    """Read items with a group label.

    Items are read when they are asked for: those of a Hugging Face data set are not decoded here.

    Args:
        source: A file, frame or other table; see :func:`read_records`.
        columns: Which column holds ``item``, ``group`` and ``split``. Default: columns of these names, else those of
            open-metric-learning: ``path`` for the items and ``label`` for the groups.
        split: Take only rows whose column ``split`` says this, such as ``"train"``. Needed where that column says
            several things; ``"all"`` then takes every row.
        root: Folder that the items are paths in. Default: items of a column called ``path`` are paths in the folder
            of the file, or as they are where the source is no file; other items are no paths. Paths become
            :class:`pathlib.Path`.
        label_names: A mapping from number to label to use, see :class:`SimilarityGroupDataset`.
        on_error: Open every item as an image: ``"raise"`` names the first that cannot be read, ``"skip"`` leaves such
            items out, logs how many, and keeps their names in the data set's ``skipped``. Default: they are not opened.
        decode: Where they are opened: also decode them, which finds files that end too early. Default: with
            ``on_error="skip"`` only.

    Returns:
        The items in the order of the rows; labels are numbered by first appearance unless all are integers, or
        texts in a CSV or TSV file that say integers.

    Raises:
        DataError: A column is missing, or a value in it, with source and row; or there is no such split.

    Example:
        >>> rows = [{"path": "a.jpg", "label": 7, "split": "train"}, {"path": "b.jpg", "label": 8, "split": "test"}]
        >>> data = read_groups(rows, split="train", root="photos")
        >>> len(data), data[0].obj.as_posix(), data[0].group
        (1, 'photos/a.jpg', 7)
    """
    check_roles(columns, GROUP_ROLES)
    table = open_table(source)
    names = column_names(table, columns, GROUP_ROLES)
    table = split_rows(table, names["split"], split)
    require(table, (names["item"], names["group"]))
    skipped: list[str] = []
    if on_error is not None:
        items = TableItems(table, names["item"], item_root(source, names["item"], root))
        readable, skipped = check_images(items, table.place, on_error, decode)
        table = SelectedRows(table, readable)
    items = TableItems(table, names["item"], item_root(source, names["item"], root))
    return SimilarityGroupDataset(LabelledItems(items, labels_of(table, names["group"])), label_names, skipped)
