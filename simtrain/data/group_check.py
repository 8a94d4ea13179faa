"""Whether group labels can teach anything."""

from __future__ import annotations

from collections import Counter
from typing import Any

from simtrain.data.group_labels import label_list
from simtrain.data.samples import SimilarityGroupSample
from simtrain.errors import DataError


def check_groups(source: Any) -> None:
    """Refuse group labels that no loss can learn from: all different, or all equal.

    Data sets hold such labels without complaint, since a gallery may well look so; call this before training.

    Args:
        source: One label an item (any hashables, an array or a tensor), group samples, or a data set with ``groups``.

    Raises:
        DataError: There is no label, no group has two items, or there is only one group.

    Example:
        >>> check_groups(["shoes", "hats", "shoes"])
        >>> check_groups(["shoes", "hats"])
        Traceback (most recent call last):
        simtrain.errors.DataError: all 2 group labels are different ('shoes', 'hats', ...), so that no item ...
    """
    given = label_list(source)
    labels = [label.group if isinstance(label, SimilarityGroupSample) else label for label in given]
    counts = Counter(labels)
    if not counts:
        raise DataError("training needs items with group labels, got none")
    if len(counts) == 1:
        raise DataError(
            f"all {len(labels)} group labels are equal ({labels[0]!r}), so that there is nothing to tell apart; "
            "training needs two groups or more"
        )
    if len(counts) == len(labels):
        some = ", ".join(repr(label) for label in labels[:2])
        raise DataError(
            f"all {len(labels)} group labels are different ({some}, ...), so that no item has a match; training needs "
            "groups with two items or more. Is the column of labels an id?"
        )
