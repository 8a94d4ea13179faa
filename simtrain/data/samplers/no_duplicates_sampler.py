"""Batches in which no text, and no subgroup, is there twice."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np

from simtrain.data.sample_keys import KeysOf, KeyTable
from simtrain.data.samplers.conflict_free import ConflictFreeBatches
from simtrain.data.samplers.similarity_sampler import SimilaritySampler
from simtrain.errors import ConfigError, DataError
from simtrain.registry import samplers

# An order that fails is drawn again: another draw may succeed where the samples are hard to place.
ATTEMPTS = 5


@samplers.register_module()
class NoDuplicatesSampler(SimilaritySampler):
    """No two samples of a batch share a key: a text, on whichever side it is, or a non-zero subgroup.

    A ranking loss takes the other pairs of a batch as negatives; a pair with the same query or document, or of the
    same subgroup, would be a false one. Every sample is taken once an epoch, in random order; only the last batch
    may be smaller. Of several processes, none of their batches together holds a key twice.

    A key that is in more samples than there are batches cannot be kept apart. ``conflicts`` says what is done then:

    - ``"error"``: an error, at once;
    - ``"keep"``: what cannot be placed goes to a batch with an equal key after all; :attr:`n_conflicts` counts it;
    - ``"drop"``: an epoch has whole batches only, without conflict; others are left out in each.

    Args:
        source: A data set, or a sequence, of pairs or triplets.
        batch_size: Samples in a batch of one process, the same as the loader's.
        seed: Seed of the order; default: drawn from torch's global generator.
        keys: Function from a sample to what must not be there twice, for other samples or objects that have no hash.
        conflicts: ``"error"``, ``"keep"`` or ``"drop"``.
        remainder: ``"share"`` or ``"drop"``, see :class:`ShuffleSampler`.

    Attributes:
        n_conflicts: How many samples of the latest order share a key with another of their batch.

    Raises:
        ConfigError: An argument is out of its range.
        DataError: There is no sample, a sample's objects cannot be compared, or a key is in more samples than there
            are batches.

    Example:
        >>> from simtrain.data import SimilarityPairSample
        >>> pairs = [SimilarityPairSample(query, document) for query in "ab" for document in "xy"]
        >>> order = list(NoDuplicatesSampler(pairs, batch_size=2, seed=0))
        >>> sorted(order), pairs[order[0]].obj_a != pairs[order[1]].obj_a
        ([0, 1, 2, 3], True)
    """

    shaped: ClassVar[bool] = True

    def __init__(
        self,
        source: Any,
        *,
        batch_size: int,
        seed: int | None = None,
        keys: KeysOf | None = None,
        conflicts: Literal["error", "keep", "drop"] = "error",
        remainder: Literal["share", "drop"] = "share",
    ) -> None:
        if conflicts not in ("error", "keep", "drop"):
            raise ConfigError(f"conflicts should be 'error', 'keep' or 'drop', got {conflicts!r}")
        if remainder not in ("share", "drop"):
            raise ConfigError(f"remainder should be 'share' or 'drop' where nothing may be repeated, got {remainder!r}")
        table = KeyTable(source, keys)
        super().__init__(table.size, batch_size, seed, remainder)
        self.conflicts = conflicts
        self.n_conflicts = 0
        self._samples_of, self._names = _shared_keys(table)
        self._counts = np.array([len(samples) for samples in self._samples_of], dtype=np.int64)
        self._keys: list[list[int]] = [[] for _ in range(self.size)]
        for key, samples in enumerate(self._samples_of):
            for sample in samples.tolist():
                self._keys[sample].append(key)
        #: In how many samples the most frequent key of each sample is.
        self._frequency = np.ones(self.size, dtype=np.int64)
        for samples, count in zip(self._samples_of, self._counts, strict=True):
            self._frequency[samples] = np.maximum(self._frequency[samples], count)
        self._room(1)

    def _total(self, processes: int) -> int:
        return int(self._room(processes).sum())

    def _order(self, random: np.random.Generator, processes: int) -> np.ndarray:
        room = self._room(processes)
        for _ in range(ATTEMPTS):
            batches = ConflictFreeBatches(room, self._keys, len(self._names), random)
            if self._fill(batches, random, len(room)):
                return np.concatenate([random.permutation(members) for members in batches.members])
        raise DataError(
            f"{batches.n_free} of {self.size} samples find no batch of {self.batch_size} without an equal key; make "
            "batch_size smaller, or set conflicts='keep' or 'drop'"
        )

    def _fill(self, batches: ConflictFreeBatches, random: np.random.Generator, n_batches: int) -> bool:
        chosen, spare = self._choice(batches.n_free, n_batches, random)
        # What is hardest to place comes first, while there is room everywhere.
        unplaced = batches.place(chosen[np.argsort(-self._frequency[chosen], kind="stable")].tolist())
        self.n_conflicts = 0
        if self.conflicts == "keep":
            self.n_conflicts = len(unplaced)
            batches.place_anywhere(unplaced)
        for sample in spare.tolist():
            if not batches.n_free:
                break
            batches.place([sample])
        return batches.n_free == 0

    def _choice(self, n: int, n_batches: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """``n`` random samples, of which no key has more than ``n_batches``, and the others."""
        shuffled = random.permutation(self.size)
        if n == self.size:
            return shuffled, shuffled[:0]
        surplus = np.zeros(self.size, dtype=bool)
        for key in np.flatnonzero(self._counts > n_batches):
            here = random.permutation(self._samples_of[key])
            surplus[here[~surplus[here]][n_batches:]] = True
        shuffled = np.concatenate([shuffled[~surplus[shuffled]], shuffled[surplus[shuffled]]])
        return shuffled[:n], shuffled[n:]

    def _room(self, processes: int) -> np.ndarray:
        """How many samples each batch of all processes takes."""
        per_batch = processes * int(self.batch_size or 1)
        if self.conflicts == "drop":
            return np.full(self._n_whole(per_batch), per_batch)
        n_batches = -(-self.size // per_batch)
        if self.conflicts == "error" and len(self._counts) and self._counts.max() > n_batches:
            key = int(self._counts.argmax())
            raise DataError(
                f"{self._names[key]!r:.80} is in {self._counts[key]} samples, but there are only {n_batches} batches "
                f"of {per_batch}; make batch_size smaller, or set conflicts='keep' or 'drop'"
            )
        room = np.full(n_batches, per_batch)
        room[-1] = self.size - (n_batches - 1) * per_batch
        return room

    def _n_whole(self, per_batch: int) -> int:
        """Most whole batches without more samples of a key than there are batches."""
        n_batches = self.size // per_batch
        while n_batches and self.size - np.maximum(self._counts - n_batches, 0).sum() < n_batches * per_batch:
            n_batches -= 1
        if n_batches == 0:
            raise DataError(
                f"no batch of {per_batch} samples without an equal key can be made; make batch_size smaller"
            )
        return n_batches


def _shared_keys(table: KeyTable) -> tuple[list[np.ndarray], list[Any]]:
    """Samples of each key that more than one has, and those keys."""
    counts = table.counts()
    sorting = np.argsort(table.numbers, kind="stable")
    ends = np.cumsum(counts)
    shared = np.flatnonzero(counts > 1)
    samples = [table.samples[sorting[ends[key] - counts[key] : ends[key]]] for key in shared]
    return samples, [table.names[key] for key in shared.tolist()]
