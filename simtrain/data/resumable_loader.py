"""A loader that can go on where another one stopped, also in the middle of an epoch."""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from simtrain.data.batches import collate_samples
from simtrain.data.collate import EncoderCollate
from simtrain.data.numbered_samples import NumberedCollate, NumberedSamples
from simtrain.data.samplers.dealing import current_world
from simtrain.data.samplers.similarity_sampler import Place, SimilaritySampler
from simtrain.errors import CheckpointError, DataError

#: Samplers whose order is drawn anew each time and cannot be had again.
FORGETFUL = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


@dataclass
class LoaderPass:
    """One iteration of a loader.

    Attributes:
        n_batches: How many batches it will hand out; None where that is not known.
        place: Where it began, for a sampler of this package.
        step: Samples in a batch of all processes.
        given: Batches handed out, and those skipped before.
        open: Whether it can still go on.
    """

    n_batches: int | None
    place: Place | None
    step: int
    given: int
    open: bool = True

    @property
    def complete(self) -> bool:
        """Whether every batch was handed out."""
        return self.n_batches is not None and self.given >= self.n_batches

    def now(self) -> Place:
        """Place in the sampler's stream after the batches handed out."""
        assert self.place is not None
        if self.complete:
            return Place(self.place.epoch + 1)
        return self.place._replace(position=self.place.position + self.given * self.step)


class ResumableDataLoader(DataLoader[Any]):
    """A ``DataLoader`` with ``state_dict`` and ``load_state_dict``, which Lightning saves and loads by itself.

    The state counts the batches that were handed out, not those that workers have prefetched. With a
    :class:`~simtrain.data.SimilaritySampler` the next iteration after loading goes on with exactly the samples that
    were left; so it does with samplers that repeat their order, in-order reading for one. A stream is read again and
    thrown away up to that place; one without a length is fetched a batch ahead by Lightning, which is not trained on
    after resuming.

    Nothing is read, and no worker started, before the first batch is asked for: an epoch that is set after ``iter()``
    counts.
    """

    def __init__(self, dataset: Any, batch_size: int | None = 1, **options: Any) -> None:
        super().__init__(dataset, batch_size=batch_size, **options)
        self._seeds_workers = options.get("generator") is None
        self._passes: list[LoaderPass] = []
        self._done: LoaderPass | None = None
        self._skip = 0
        self._check_sampler()

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        progress, batches = self._begin()
        try:
            for batch in batches:
                self._count(progress)
                yield batch
            self._finish(progress)
        finally:
            progress.open = False

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration that handed out the latest batch, and has some left, has come to."""
        current = self._passes[-1] if self._passes else self._done
        sampler = self.own_sampler
        if sampler is None:
            given = self._skip if current is None else 0 if current.complete else current.given
            return {"batches": given, "sampler": None}
        state = sampler.state_dict() if current is None else sampler.state_at(current.now())
        return {"batches": None, "sampler": state}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Let the next iteration go on where another loader had come to.

        Raises:
            CheckpointError: The state belongs to a loader with another kind of sampler, or to other data.
        """
        sampler = self.own_sampler
        if not {"batches", "sampler"} <= state_dict.keys() or (state_dict["sampler"] is None) != (sampler is None):
            raise CheckpointError(
                f"the loader's state was not saved by one with a sampler like {type(self.sampler).__name__}; make the "
                "loader as it was made then"
            )
        if sampler is not None:
            sampler.load_state_dict(state_dict["sampler"])
        self.forget()
        self._skip = int(state_dict["batches"] or 0)
        if self._skip and isinstance(inner_sampler(self), FORGETFUL):
            warnings.warn(
                f"the order of a {type(inner_sampler(self)).__name__} cannot be restored: the rest of this epoch is "
                "drawn anew, so some samples come twice and some not at all; use shuffle=True of a similarity loader, "
                "or one of simtrain.data's samplers",
                stacklevel=2,
            )

    def forget(self) -> None:
        """Forget all iterations, for a copy that has not begun any."""
        self._passes, self._done, self._skip = [], None, 0

    @property
    def own_sampler(self) -> SimilaritySampler | None:
        """The sampler, if its place can be saved."""
        sampler = inner_sampler(self)
        return sampler if isinstance(sampler, SimilaritySampler) else None

    def _begin(self) -> tuple[LoaderPass, Iterable[Any]]:
        sampler, skip = self.own_sampler, self._skip
        self._passes, self._done, self._skip = [one for one in self._passes if one.open], None, 0
        if sampler is None:
            progress = LoaderPass(self._length(), None, 0, skip)
            return progress, self._batches_after(skip)
        place, batch_size = sampler.upcoming(), getattr(self.batch_sampler, "batch_size", 1)
        n_batches = sampler.left(place) / batch_size
        whole = math.floor(n_batches) if getattr(self.batch_sampler, "drop_last", False) else math.ceil(n_batches)
        if self._seeds_workers:
            # Else each iteration draws from torch's global generator, and a resumed run from another place of it.
            words = np.random.SeedSequence([sampler.seed, place.epoch, current_world().rank]).generate_state(1)
            self.generator = torch.Generator().manual_seed(int(words[0]))
        return LoaderPass(whole, place, batch_size * current_world().size, 0), self._batches()

    def _batches(self) -> Iterable[Any]:
        """One iteration, in the order of the samplers."""
        return super().__iter__()

    def _get_iterator(self) -> Any:
        """Torch's seam between a loader and the workers of one iteration: here samples are given their numbers."""
        ours = self.collate_fn is collate_samples or isinstance(self.collate_fn, EncoderCollate)
        if not ours or self.batch_sampler is None or isinstance(self.dataset, IterableDataset):
            return super()._get_iterator()
        numbered = copy.copy(self)
        # A loader refuses to have its data set set; this copy lives for one iteration.
        numbered.__dict__["dataset"] = NumberedSamples(self.dataset)
        numbered.collate_fn = NumberedCollate(self.collate_fn, self.dataset)
        return DataLoader._get_iterator(numbered)

    def _batches_after(self, skip: int) -> Iterable[Any]:
        if not skip:
            return self._batches()
        later = copy.copy(self)
        later._iterator = None
        if later.generator is None:
            # The seed of the workers was drawn from torch's global generator when the epoch began: not once more.
            later.generator = torch.Generator()
        if isinstance(self.dataset, IterableDataset):
            return itertools.islice(later._batches(), skip, None)
        name = "sampler" if self.batch_sampler is None else "batch_sampler"
        # A loader refuses to have its samplers set; this copy lives for one iteration.
        later.__dict__[name] = Later(getattr(self, name), skip)
        return later._batches()

    def _count(self, progress: LoaderPass) -> None:
        progress.given += 1
        if self._passes and self._passes[-1] is progress and not progress.complete:
            return
        self._passes = [one for one in self._passes if one is not progress]
        if progress.complete:
            self._done = progress
        else:
            self._passes.append(progress)

    def _finish(self, progress: LoaderPass) -> None:
        progress.n_batches = progress.given
        self._passes = [one for one in self._passes if one is not progress]
        self._done = progress

    def _length(self) -> int | None:
        try:
            return None if isinstance(self.dataset, IterableDataset) else len(self)
        except TypeError:
            return None

    def _check_sampler(self) -> None:
        sampler = self.own_sampler
        if sampler is None:
            return
        batch_size = getattr(self.batch_sampler, "batch_size", 1)
        if sampler.batch_size not in (None, batch_size):
            raise DataError(
                f"the sampler makes batches of {sampler.batch_size}, but the loader's batch_size is {batch_size}; "
                "they should be the same"
            )
        if sampler.size != len(self.dataset):  # type: ignore[arg-type]
            raise DataError(f"the sampler is for {sampler.size} samples, but the data set has {len(self.dataset)}")  # type: ignore[arg-type]


class Later(Sampler[Any]):
    """What a sampler, or batch sampler, gives after its first elements."""

    def __init__(self, sampler: Iterable[Any], skip: int) -> None:
        self.sampler, self.skip = sampler, skip

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(iter(self.sampler), self.skip, None)

    def __len__(self) -> int:
        return max(len(self.sampler) - self.skip, 0)  # type: ignore[arg-type]


def inner_sampler(loader: DataLoader[Any]) -> Any:
    """What gives the numbers of single samples, also below a batch sampler."""
    return getattr(loader.batch_sampler, "sampler", loader.sampler)
