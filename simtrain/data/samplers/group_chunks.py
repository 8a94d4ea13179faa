"""Batches of P groups with K items each: which groups meet, and which items stand for them."""

from __future__ import annotations

import numpy as np

from simtrain.data.group_labels import GroupLabels


def by_group(groups: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Sample numbers sorted by group ``(n,)``, those of one group in random order."""
    shuffled = random.permutation(len(groups))
    return shuffled[np.argsort(groups[shuffled], kind="stable")]


def most_batches(n_chunks: np.ndarray, groups_per_batch: int) -> int:
    """How many batches of different groups can be made, where group ``g`` can be in ``n_chunks[g]`` of them.

    Example:
        >>> most_batches(np.array([5, 1, 1]), 2)
        2
    """
    low, high = 0, int(n_chunks.sum()) // groups_per_batch
    while low < high:
        middle = (low + high + 1) // 2
        # A group can be in each of `middle` batches once.
        if np.minimum(n_chunks, middle).sum() >= groups_per_batch * middle:
            low = middle
        else:
            high = middle - 1
    return low


def quotas(n_chunks: np.ndarray, n_batches: int, groups_per_batch: int, random: np.random.Generator) -> np.ndarray:
    """In how many batches each group will be: as often as it can, all together exactly filling the batches."""
    used = np.minimum(n_chunks, n_batches)
    surplus = int(used.sum()) - n_batches * groups_per_batch
    dropped = random.permutation(np.repeat(np.arange(len(used)), used))[:surplus]
    return np.asarray(used - np.bincount(dropped, minlength=len(used)))


def meet_at_random(quota: np.ndarray, n_batches: int, random: np.random.Generator) -> np.ndarray:
    """Groups of each batch at random, ``(n_batches, groups_per_batch)``, different ones in a batch.

    Args:
        quota: In how many batches each group is, ``n_batches`` at most; its sum is a multiple of ``n_batches``.
        n_batches: Number of batches.
        random: Source of randomness.
    """
    shuffled = random.permutation(len(quota))
    # One line of all places, cut into rows with a place in each batch: a group's places stand next to each other, so
    # they are in one row, or at the end of one and the beginning of the next.
    rows = np.repeat(shuffled, quota[shuffled]).reshape(-1, n_batches)
    batches = np.empty_like(rows)
    for number, row in enumerate(rows):
        carried = int((row == rows[number - 1][-1]).sum()) if number else 0
        free = np.flatnonzero(batches[number - 1] != row[0]) if carried else np.arange(n_batches)
        first = random.permutation(free)[:carried]
        others = np.setdiff1d(np.arange(n_batches), first, assume_unique=True)
        batches[number, first] = row[:carried]
        batches[number, random.permutation(others)] = row[carried:]
    return random.permuted(batches.T, axis=1)


def items_of(batches: np.ndarray, groups: GroupLabels, per_group: int, random: np.random.Generator) -> np.ndarray:
    """Items for the groups of each batch: all of a group's items in turn, again from the first where they run out.

    Args:
        batches: Groups of each batch, ``(n_batches, groups_per_batch)``.
        groups: The groups of the items.
        per_group: Items of a group in a batch.
        random: Source of randomness.

    Returns:
        Item numbers, ``(n_batches * groups_per_batch * per_group,)``.
    """
    chunks = batches.reshape(-1)
    sorting = np.argsort(chunks, kind="stable")
    visits = np.bincount(chunks, minlength=len(groups))
    nth = np.empty_like(chunks)
    nth[sorting] = nth_of_each(visits)
    within = (nth[:, None] * per_group + np.arange(per_group)) % groups.counts[chunks, None]
    places = first_of_each(groups.counts)[chunks, None] + within
    return np.asarray(by_group(groups.numbers, random)[places.reshape(-1)])


def first_of_each(counts: np.ndarray) -> np.ndarray:
    """Where each group begins in a list that is sorted by group."""
    return np.asarray(np.cumsum(counts) - counts)


def nth_of_each(counts: np.ndarray) -> np.ndarray:
    """How many of the same group come before, for each element of a list that is sorted by group.

    Example:
        >>> nth_of_each(np.array([3, 2]))
        array([0, 1, 2, 0, 1])
    """
    return np.asarray(np.arange(counts.sum()) - np.repeat(first_of_each(counts), counts))
