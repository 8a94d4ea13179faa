"""Filling batches so that no two samples of one share a key."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

# So many random places are tried before all batches are looked through.
QUICK_TRIES = 16
# So many exchanges are tried for a sample that fits nowhere, and for so many samples in vain.
MAX_EXCHANGES = 100
MAX_FAILURES = 50


class ConflictFreeBatches:
    """Batches with room for so many samples each, filled one sample at a time.

    Args:
        room: Number of samples that each batch takes, ``(n_batches,)``.
        keys: Keys of each sample, as numbers from 0 on.
        n_keys: How many keys there are.
        random: Source of randomness.

    Example:
        >>> batches = ConflictFreeBatches(np.array([2, 2]), [[0], [0], [], []], 1, np.random.default_rng(0))
        >>> batches.place([0, 1, 2, 3])
        []
        >>> sorted(len({0, 1} & set(members)) for members in batches.members)
        [1, 1]
    """

    def __init__(
        self, room: np.ndarray, keys: Sequence[Sequence[int]], n_keys: int, random: np.random.Generator
    ) -> None:
        self.members: list[list[int]] = [[] for _ in room]
        self.n_free = int(room.sum())
        self._keys, self._random, self._failures = keys, random, 0
        # Key → batch → the sample there that has the key.
        self._holders: list[dict[int, int]] = [{} for _ in range(n_keys)]
        self._room: list[int] = room.tolist()
        self._open = set(np.flatnonzero(room).tolist())
        # One entry for each free place, in random order: the last that fits is a random one. An entry outlives its
        # place where that was found otherwise: so many of a batch's entries are void.
        self._places: list[int] = random.permutation(np.repeat(np.arange(len(room)), room)).tolist()
        self._void = [0] * len(room)

    def place(self, samples: Iterable[int]) -> list[int]:
        """Put samples into batches at random, moving others where it has to be.

        Returns:
            The samples for which no batch was found.
        """
        return [sample for sample in samples if not (self._add(sample) or self._make_room(sample))]

    def place_anywhere(self, samples: Iterable[int]) -> None:
        """Put samples into batches without looking at their keys."""
        free = np.repeat(np.arange(len(self._room)), self._room)
        for sample, batch in zip(samples, self._random.permutation(free).tolist(), strict=False):
            self.members[batch].append(sample)
            self._room[batch] -= 1
            self.n_free -= 1

    def _add(self, sample: int, but: int = -1) -> bool:
        holders = [self._holders[key] for key in self._keys[sample]]
        if any(len(holder) == len(self.members) for holder in holders):
            return False
        batch = self._random_batch(holders, but)
        if batch is None:
            batch = self._any_batch(holders, but)
            if batch is None:
                return False
            self._void[batch] += 1
        self._enter(sample, batch)
        return True

    def _random_batch(self, holders: Sequence[dict[int, int]], but: int) -> int | None:
        places, tries = self._places, 0
        while tries < min(QUICK_TRIES, len(places)):
            position = len(places) - 1 - tries
            batch = places[position]
            void = self._void[batch] > 0
            if void or (batch != but and not any(batch in holder for holder in holders)):
                places[position] = places[-1]
                places.pop()
                if not void:
                    return batch
                self._void[batch] -= 1
            else:
                tries += 1
        return None

    def _any_batch(self, holders: Sequence[dict[int, int]], but: int) -> int | None:
        fitting = list(self._open.difference(*holders, (but,)))
        return fitting[int(self._random.integers(len(fitting)))] if fitting else None

    def _enter(self, sample: int, batch: int) -> None:
        self.members[batch].append(sample)
        self._room[batch] -= 1
        self.n_free -= 1
        if not self._room[batch]:
            self._open.discard(batch)
        for key in self._keys[sample]:
            self._holders[key][batch] = sample

    def _leave(self, sample: int, batch: int) -> None:
        self.members[batch].remove(sample)
        self._room[batch] += 1
        self.n_free += 1
        self._open.add(batch)
        for key in self._keys[sample]:
            del self._holders[key][batch]

    def _make_room(self, sample: int) -> bool:
        holders = [self._holders[key] for key in self._keys[sample]]
        hopeless = any(len(holder) == len(self.members) for holder in holders)
        if hopeless or not self.n_free or self._failures > MAX_FAILURES:
            return False
        for batch, leaving in itertools.islice(self._exchanges(holders), MAX_EXCHANGES):
            if self._exchange(sample, leaving, batch):
                return True
        self._failures += 1
        return False

    def _exchanges(self, holders: Sequence[dict[int, int]]) -> Iterator[tuple[int, set[int]]]:
        """Batches in random order, each with samples that make room when they leave."""
        for batch in self._random.permutation(len(self.members)).tolist():
            in_the_way = {holder[batch] for holder in holders if batch in holder}
            if in_the_way:
                yield batch, in_the_way
            else:
                yield from ((batch, {member}) for member in list(self.members[batch]))

    def _exchange(self, sample: int, leaving: set[int], batch: int) -> bool:
        for other in leaving:
            self._leave(other, batch)
            if not self._add(other, but=batch):
                self._enter(other, batch)
                return False
            self._places.append(batch)
        self._enter(sample, batch)
        self._void[batch] += 1
        return True
