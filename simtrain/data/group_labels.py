"""Group labels, from wherever a user has them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Subset

from simtrain.data.samples import SimilarityGroupSample
from simtrain.errors import DataError


class GroupLabels:
    """Groups of the items of a data set, numbered 0, 1, ...

    Args:
        source: One label an item (a sequence, an array or a tensor, of integers or other hashables), group samples, a
            data set with a ``groups`` attribute such as :class:`SimilarityGroupDataset`, or a ``Subset`` of one.

    Attributes:
        numbers: Group number of each item, ``(items,)``, int64.
        names: The labels by group number.
        counts: Number of items by group number.

    Raises:
        DataError: There is no label, or ``source`` is none of these.

    Example:
        >>> groups = GroupLabels(["shoes", "hats", "shoes"])
        >>> groups.numbers, groups.names
        (array([0, 1, 0]), ['shoes', 'hats'])
    """

    def __init__(self, source: Any) -> None:
        labels = label_list(source)
        if not labels:
            raise DataError("at least one label is needed, got none")
        known = {label: number for number, label in enumerate(dict.fromkeys(labels))}
        self.names: list[Hashable] = list(known)
        self.numbers = np.fromiter(map(known.__getitem__, labels), dtype=np.int64, count=len(labels))
        self.counts = np.bincount(self.numbers)
        self._known = known

    def __len__(self) -> int:
        return len(self.names)

    def find(self, labels: Any) -> np.ndarray:
        """Group numbers of other items' labels.

        Raises:
            DataError: No item of the data set has one of these labels.
        """
        wanted = label_list(labels)
        strangers = [label for label in dict.fromkeys(wanted) if label not in self._known]
        if strangers:
            raise DataError(f"there is no group with the label {strangers[0]!r:.60}; labels should be the data set's")
        return np.fromiter(map(self._known.__getitem__, wanted), dtype=np.int64, count=len(wanted))


def label_list(source: Any) -> list[Hashable]:
    """The labels as plain Python values: 3 and a tensor that holds 3 are one label."""
    if isinstance(source, Subset):
        labels = label_list(source.dataset)
        return [labels[index] for index in source.indices]
    if hasattr(source, "groups"):
        return label_list(source.groups)
    if isinstance(source, (Tensor, np.ndarray)):
        if source.ndim != 1:
            raise DataError(f"labels should have one dimension, got shape {tuple(source.shape)}")
        return list(source.tolist())
    try:
        labels = [_plain(label) for label in source]
        set(labels)
    except TypeError as error:
        raise DataError(
            "labels should be a sequence of hashable labels, an array, or a data set that has `groups`, got "
            f"{type(source).__name__}: {error}"
        ) from error
    return labels


def _plain(label: Any) -> Any:
    if isinstance(label, SimilarityGroupSample):
        return label.group
    return label.item() if hasattr(label, "item") else label
