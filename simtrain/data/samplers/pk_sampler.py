"""Batches of P groups with K items each."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np

from simtrain.data.group_check import check_groups
from simtrain.data.group_labels import GroupLabels
from simtrain.data.samplers.group_chunks import items_of, meet_at_random, most_batches, quotas
from simtrain.data.samplers.similarity_sampler import SimilaritySampler
from simtrain.errors import ConfigError, DataError
from simtrain.registry import samplers


@samplers.register_module()
class PKSampler(SimilaritySampler):
    """Batches of ``batch_size / per_group`` different groups with ``per_group`` items each.

    An epoch is about one pass over the data set: the items of each group are shuffled and cut into portions of
    ``per_group``, and the portions are put together to as many whole batches of different groups as there can be.
    No item is taken twice in an epoch, but those of a small group. Left out, others in each epoch, are what does not
    fill a portion (fewer than ``per_group`` items a group) or the last batch, and what a group has more of than
    there are batches. Several processes together have the batches that one process with their joint batch size has.

    Args:
        labels: One label an item, or a data set that has them; see
            :class:`~simtrain.data.group_labels.GroupLabels`.
        batch_size: Items in a batch of one process, the same as the loader's; a multiple of ``per_group``.
        per_group: Items of a group in a batch.
        seed: Seed of the order; default: drawn from torch's global generator.
        small_groups: What to do with groups of fewer than ``per_group`` items: ``"replace"`` repeats their items, once
            an epoch; ``"skip"`` leaves them out.

    Attributes:
        n_small_groups: How many groups have fewer than ``per_group`` items.
        n_skipped: How many items are never taken, because their group is small and skipped.

    Raises:
        ConfigError: ``batch_size`` is no multiple of ``per_group``, or an argument is out of its range.
        DataError: There are too few groups for a batch, one group only, or no group has two items.

    Example:
        >>> labels = [0, 0, 0, 1, 1, 1, 2, 2, 2]
        >>> batch = list(PKSampler(labels, batch_size=6, per_group=2, seed=0))
        >>> sorted(labels[i] for i in batch)
        [0, 0, 1, 1, 2, 2]
    """

    shaped: ClassVar[bool] = True

    def __init__(
        self,
        labels: Any,
        *,
        batch_size: int,
        per_group: int,
        seed: int | None = None,
        small_groups: Literal["replace", "skip"] = "replace",
    ) -> None:
        if per_group < 1 or batch_size < 1 or batch_size % per_group:
            raise ConfigError(f"batch_size should be a multiple of per_group, got {batch_size!r} and {per_group!r}")
        if small_groups not in ("replace", "skip"):
            raise ConfigError(f"small_groups should be 'replace' or 'skip', got {small_groups!r}")
        self._groups = GroupLabels(labels)
        super().__init__(len(self._groups.numbers), batch_size, seed)
        self.per_group = per_group
        small = self._groups.counts < per_group
        self.n_small_groups = int(small.sum())
        self.n_skipped = int(self._groups.counts[small].sum()) if small_groups == "skip" else 0
        self._n_portions = np.where(small, int(small_groups == "replace"), self._groups.counts // per_group)
        if len(self._groups) == 1 or (per_group > 1 and self._groups.counts.max() == 1):
            check_groups(labels)
        self._n_batches(1)

    def _total(self, processes: int) -> int:
        return self._n_batches(processes) * processes * int(self.batch_size or 1)

    def _order(self, random: np.random.Generator, processes: int) -> np.ndarray:
        n_batches, groups_per_batch = self._n_batches(processes), self._groups_per_batch(processes)
        quota = quotas(self._n_portions, n_batches, groups_per_batch, random)
        batches = self._meet(quota, n_batches, random)
        return items_of(batches, self._groups, self.per_group, random)

    def _meet(self, quota: np.ndarray, n_batches: int, random: np.random.Generator) -> np.ndarray:
        """Groups of each batch, ``(n_batches, groups per batch)``."""
        return meet_at_random(quota, n_batches, random)

    def _groups_per_batch(self, processes: int) -> int:
        return processes * int(self.batch_size or 1) // self.per_group

    def _n_batches(self, processes: int) -> int:
        needed, there = self._groups_per_batch(processes), int((self._n_portions > 0).sum())
        if there < needed:
            company = f" on {processes} processes" if processes > 1 else ""
            skipped = f" of at least {self.per_group} items" if self.n_skipped else ""
            raise DataError(
                f"batches of {self.batch_size}{company} with {self.per_group} items a group need {needed} groups, but "
                f"there are {there}{skipped}; make batch_size smaller or per_group larger"
            )
        return most_batches(self._n_portions, needed)
