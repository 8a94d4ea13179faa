"""All classes equally often."""

from __future__ import annotations

from typing import Any

import numpy as np

from simtrain.data.group_labels import GroupLabels
from simtrain.data.samplers.dealing import Remainder
from simtrain.data.samplers.group_chunks import by_group, first_of_each, nth_of_each
from simtrain.data.samplers.similarity_sampler import SimilaritySampler
from simtrain.errors import ConfigError
from simtrain.registry import samplers


@samplers.register_module()
class BalancedSampler(SimilaritySampler):
    """Every class equally often, however many samples it has.

    In an epoch the classes' numbers of samples differ by one at most, and so do the numbers of times that the
    samples of one class are taken: those of a small class are repeated, some of a large one left out, others each
    epoch.

    Args:
        labels: One label a sample, or a data set that has them; see
            :class:`~simtrain.data.group_labels.GroupLabels`.
        n_samples: Samples in an epoch; default: as many as there are labels.
        seed: Seed of the order; default: drawn from torch's global generator.
        batch_size: Batch size of the loader; see :class:`ShuffleSampler`.
        remainder: What to do where several processes cannot share the last batch evenly; see
            :class:`ShuffleSampler`. As samples are repeated anyway, the default is ``"repeat"``.

    Raises:
        ConfigError: ``n_samples`` is not positive.
        DataError: There is no label.

    Example:
        >>> labels = [0, 0, 0, 0, 0, 1]
        >>> sorted(labels[i] for i in BalancedSampler(labels, seed=0))
        [0, 0, 0, 1, 1, 1]
    """

    def __init__(
        self,
        labels: Any,
        n_samples: int | None = None,
        seed: int | None = None,
        *,
        batch_size: int | None = None,
        remainder: Remainder = "repeat",
    ) -> None:
        self._groups = GroupLabels(labels)
        if n_samples is not None and n_samples < 1:
            raise ConfigError(f"n_samples should be a positive integer, got {n_samples!r}")
        super().__init__(len(self._groups.numbers), batch_size, seed, remainder)
        self.n_samples = n_samples or self.size

    def _total(self, processes: int) -> int:
        return self.n_samples

    def _order(self, random: np.random.Generator, processes: int) -> np.ndarray:
        counts = self._groups.counts
        quota = np.full(len(counts), self.n_samples // len(counts))
        # Which classes get one sample more is drawn anew each time.
        quota[random.permutation(len(counts))[: self.n_samples % len(counts)]] += 1
        within = nth_of_each(quota) % np.repeat(counts, quota)
        places = np.repeat(first_of_each(counts), quota) + within
        return random.permutation(by_group(self._groups.numbers, random)[places])
