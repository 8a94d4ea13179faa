"""Training, validation and test parts that have nothing in common."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from simtrain.data.group_labels import GroupLabels
from simtrain.data.sample_keys import KeysOf, KeyTable
from simtrain.errors import ConfigError, DataError

SIZES = {"train": 0.8, "valid": 0.1, "test": 0.1}


def split_groups(
    labels: Any, sizes: Mapping[str, float | int] = SIZES, seed: int = 0, stratify: bool = True
) -> dict[str, list[int]]:
    """Split items so that all items of a group are in one part.

    Whether an embedding finds items of groups that it was not trained on can be measured only so.

    Args:
        labels: One label an item, or a data set that has them; see
            :class:`~simtrain.data.group_labels.GroupLabels`.
        sizes: Share of the items in each part, by name; the shares add up to 1.
        seed: Another seed gives another split; the same gives the same.
        stratify: Give each part large and small groups in the same proportion; else groups of any size at random.

    Returns:
        Item numbers of each part, ascending, for ``torch.utils.data.Subset(dataset, parts["train"])``. The shares
        are met as nearly as whole groups allow; no part is empty.

    Raises:
        ConfigError: A share is not positive, or they do not add up to 1.
        DataError: There are fewer groups than parts.

    Example:
        >>> parts = split_groups(["a", "a", "b", "b", "c", "c", "d", "d"], {"train": 0.75, "test": 0.25})
        >>> {name: len(numbers) for name, numbers in parts.items()}
        {'train': 6, 'test': 2}
    """
    return _split(GroupLabels(labels).numbers, sizes, seed, stratify, "groups")


def split_pairs(
    source: Any,
    sizes: Mapping[str, float | int] = SIZES,
    seed: int = 0,
    stratify: bool = True,
    keys: KeysOf | None = None,
) -> dict[str, list[int]]:
    """Split pairs or triplets so that no text and no non-zero subgroup is in two parts.

    Pairs that share a text, on whichever side it is, stay together, and so do those that are linked through others.

    Args:
        source: A data set, or a sequence, of pairs or triplets.
        sizes: Share of the samples in each part, by name; the shares add up to 1.
        seed: Another seed gives another split; the same gives the same.
        stratify: Give each part large and small sets of linked samples in the same proportion.
        keys: Function from a sample to what must not be in two parts, for other samples or objects without a hash.

    Returns:
        Sample numbers of each part, ascending; see :func:`split_groups`.

    Raises:
        ConfigError: A share is not positive, or they do not add up to 1.
        DataError: The samples are linked to fewer sets than there are parts.

    Example:
        >>> from simtrain.data import SimilarityPairSample
        >>> pairs = [SimilarityPairSample(query, query.upper()) for query in ("a", "a", "b", "c")]
        >>> parts = split_pairs(pairs, {"train": 0.5, "test": 0.5})
        >>> sorted(parts.values())
        [[0, 1], [2, 3]]
    """
    return _split(KeyTable(source, keys).components(), sizes, seed, stratify, "sets of linked samples")


def _split(
    groups: np.ndarray, sizes: Mapping[str, float | int], seed: int, stratify: bool, noun: str
) -> dict[str, list[int]]:
    _check_sizes(sizes)
    counts = np.bincount(groups)
    if len(counts) < len(sizes):
        raise DataError(f"{len(sizes)} parts need at least {len(sizes)} {noun}, got {len(counts)}")
    order = np.random.default_rng(seed).permutation(len(counts))
    if stratify:
        order = order[np.argsort(-counts[order], kind="stable")]
    part_of_group = np.empty(len(counts), dtype=np.int64)
    part_of_group[order] = _parts(counts[order], np.array(list(sizes.values()), dtype=float))
    parts = part_of_group[groups]
    return {name: np.flatnonzero(parts == number).tolist() for number, name in enumerate(sizes)}


def _parts(counts: np.ndarray, shares: np.ndarray) -> list[int]:
    """Part of each group, in turn: the one that lacks most of its share of the items so far."""
    lacking, chosen = [0.0] * len(shares), []
    empty = set(range(len(shares)))
    for position, count in enumerate(counts.tolist()):
        for part, share in enumerate(shares.tolist()):
            lacking[part] += share * count
        # The last groups are for parts that have none yet.
        candidates = empty if len(counts) - position == len(empty) else range(len(shares))
        part = max(candidates, key=lacking.__getitem__)
        lacking[part] -= count
        empty.discard(part)
        chosen.append(part)
    return chosen


def _check_sizes(sizes: Mapping[str, float | int]) -> None:
    if not sizes or any(not share > 0 for share in sizes.values()) or not math.isclose(sum(sizes.values()), 1):
        raise ConfigError(f"sizes should be positive shares that add up to 1, got {dict(sizes)!r}")
