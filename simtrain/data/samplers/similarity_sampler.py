"""The base of all samplers: an order of samples for each epoch, dealt out to processes, resumable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DistributedSampler

from simtrain.data.samplers.dealing import Remainder, World, current_world, deal, share_length
from simtrain.errors import CheckpointError, ConfigError, DataError

STATE = ("seed", "epoch", "position", "offset", "processes", "batch_size", "size")


class Place(NamedTuple):
    """A place in the stream of samples.

    Attributes:
        epoch: The epoch.
        position: Samples of whole batches before it, of all processes together.
        offset: Samples of this process in the batch that has begun.
    """

    epoch: int
    position: int = 0
    offset: int = 0


@dataclass
class Progress:
    """How far the latest iteration has come."""

    place: Place
    world: World
    length: int
    given: int = 0


class SimilaritySampler(DistributedSampler[int]):
    """Base of the samplers: a subclass says in which order an epoch takes the samples.

    A sampler gives single sample numbers, consecutive ones of which form the loader's batches:
    ``DataLoader(dataset, sampler=sampler, batch_size=…)``. Rank and number of processes are read from
    torch.distributed when it is iterated, so it may be made before the processes are. It is a
    ``DistributedSampler``, which Lightning neither replaces nor wraps, and whose :meth:`set_epoch` it calls.

    Every iteration is another epoch: the next one after an iteration has begun, or the one that was set.

    Args:
        size: Number of samples in the data set.
        batch_size: Samples in a batch of one process; None where the order does not depend on it.
        seed: Seed of the order. Default: drawn from torch's global generator now, so that ``torch.manual_seed``
            reproduces it; several processes use that of the first.

    Attributes:
        epoch: Number of the epoch that is iterated, or is next.
        remainder: What is done with samples that cannot be shared out evenly; see
            :func:`~simtrain.data.samplers.dealing.deal`.

    Raises:
        ConfigError: Seed or batch size is out of its range.
        DataError: There is no sample.
    """

    #: Whether the order is made for a certain number of samples in a batch of all processes.
    shaped: ClassVar[bool] = False

    def __init__(
        self, size: int, batch_size: int | None = None, seed: int | None = None, remainder: Remainder = "share"
    ) -> None:
        # DistributedSampler's own constructor would ask for the process group now.
        if size == 0:
            raise DataError("a sampler needs at least one sample, got none")
        if batch_size is not None and batch_size < 1:
            raise ConfigError(f"batch_size should be a positive integer, got {batch_size!r}")
        if seed is not None and seed < 0:
            raise ConfigError(f"seed should be 0 or above, got {seed!r}")
        if remainder not in ("share", "repeat", "drop"):
            raise ConfigError(f"remainder should be 'share', 'repeat' or 'drop', got {remainder!r}")
        self.size = size
        self.batch_size = batch_size
        self.seed = int(torch.randint(2**31, ())) if seed is None else seed
        self.remainder: Remainder = remainder
        self.epoch = 0
        self._start = Place(0)
        self._start_grid: tuple[int, int] | None = None
        self._progress: Progress | None = None
        self._agreed = seed is not None

    @property
    def rank(self) -> int:  # type: ignore[override]
        """Number of this process."""
        return current_world().rank

    @property
    def num_replicas(self) -> int:  # type: ignore[override]
        """Number of processes."""
        return current_world().size

    def __len__(self) -> int:
        """Samples that this process gets in a whole epoch."""
        return self.left(Place(self.epoch))

    def __iter__(self) -> Iterator[int]:
        share, progress = self._begin()
        for index in share.tolist():
            progress.given += 1
            yield index
        self._finish(progress)

    def batches(self, batch_size: int, drop_last: bool = False) -> Iterator[Tensor]:
        """What ``BatchSampler(self, batch_size, drop_last)`` gives, as tensors: nothing is done for each sample.

        Args:
            batch_size: Samples in a batch.
            drop_last: Leave out a last batch of fewer.

        Yields:
            Sample numbers, int64, shape ``(batch_size,)``; fewer in the last batch.

        Example:
            >>> from simtrain.data import ShuffleSampler
            >>> [batch.tolist() for batch in ShuffleSampler(range(5), seed=0).batches(2)]
            [[2, 4], [3, 0], [1]]
        """
        share, progress = self._begin()
        for batch in torch.split(torch.from_numpy(share), batch_size):
            if drop_last and len(batch) < batch_size:
                break
            progress.given += len(batch)
            yield batch
        self._finish(progress)

    def _begin(self) -> tuple[np.ndarray, Progress]:
        world, place = current_world(), self.upcoming()
        resumed = place.position + place.offset > 0
        if resumed:
            self._check_grid(world)
        self._prepare(world, resumed)
        order = self._order(np.random.default_rng([self.seed, place.epoch]), world.size)[place.position :]
        share = deal(order, world, self.batch_size or 1, self.remainder)[place.offset :]
        self.epoch, self._start = place.epoch, place
        progress = self._progress = Progress(place, world, len(share))
        return share, progress

    def _finish(self, progress: Progress) -> None:
        if self._progress is progress:
            self.set_epoch(progress.place.epoch + 1)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is next. A place in the middle of the same epoch that was loaded before is kept."""
        if epoch != self.epoch or self._progress is not None:
            self._start, self._start_grid, self._progress = Place(epoch), None, None
        self.epoch = epoch

    def upcoming(self) -> Place:
        """Where the next iteration will begin."""
        return self._start if self._progress is None else Place(self.epoch + 1)

    def left(self, place: Place) -> int:
        """How many samples an iteration from ``place`` on gives to this process."""
        world = current_world()
        total = self._total(world.size) - place.position
        return share_length(total, world, self.batch_size or 1, self.remainder) - place.offset

    def state_dict(self) -> dict[str, Any]:
        """State for :meth:`load_state_dict`; the place is where the iteration that began last has come to."""
        progress = self._progress
        if progress is None:
            return self.state_at(self._start, self._start_grid)
        if progress.given == progress.length:
            return self.state_at(Place(progress.place.epoch + 1))
        batch_size = self.batch_size or 1
        n_batches, offset = divmod(progress.place.offset + progress.given, batch_size)
        position = progress.place.position + n_batches * batch_size * progress.world.size
        return self.state_at(Place(progress.place.epoch, position, offset), (progress.world.size, batch_size))

    def state_at(self, place: Place, grid: tuple[int, int] | None = None) -> dict[str, Any]:
        """State for another place than the present one.

        Args:
            place: The place.
            grid: Number of processes and batch size that it was reached with; default: the present ones.
        """
        processes, batch_size = grid or (current_world().size, self.batch_size or 1)
        return {
            "seed": self.seed,
            **place._asdict(),
            "processes": processes,
            "batch_size": batch_size,
            "size": self.size,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Let the next iteration begin where another one was when its state was taken.

        The number of processes may be another one than then. From the middle of an epoch, samplers that form batches
        then need the same number of samples in a batch of all processes.

        Raises:
            CheckpointError: Something is missing in the state, or it belongs to a data set of another size.
        """
        missing = [name for name in STATE if name not in state_dict]
        if missing:
            raise CheckpointError(f"the state of a {type(self).__name__} lacks {', '.join(missing)}")
        place = Place(*(int(state_dict[name]) for name in Place._fields))
        if place.position + place.offset and state_dict["size"] != self.size:
            raise CheckpointError(
                f"an epoch over {state_dict['size']} samples cannot be continued with {self.size}: give the data set "
                "that it began with, or set_epoch() after loading to begin a new one"
            )
        self.seed, self._agreed = int(state_dict["seed"]), True
        self.epoch, self._start, self._progress = place.epoch, place, None
        self._start_grid = int(state_dict["processes"]), int(state_dict["batch_size"])

    def _order(self, random: np.random.Generator, processes: int) -> np.ndarray:
        """Sample numbers of a whole epoch for all processes, int64."""
        raise NotImplementedError

    def _total(self, processes: int) -> int:
        """Length of :meth:`_order`; the same in every epoch."""
        return self.size

    def _prepare(self, world: World, resumed: bool) -> None:
        """Called before each iteration, on all processes: agree on what the order depends on."""
        self._agree_on_seed(world)

    def _agree_on_seed(self, world: World) -> None:
        if world.size > 1 and not self._agreed:
            self.seed, self._agreed = first_process(self.seed), True

    def _check_grid(self, world: World) -> None:
        now = world.size, self.batch_size or 1
        then = self._start_grid or now
        if self.shaped and now[0] * now[1] != then[0] * then[1]:
            raise CheckpointError(
                f"an epoch that began with {then[0]} processes x batch size {then[1]} cannot be continued with "
                f"{now[0]} x {now[1]}: keep their product, or set_epoch() to begin a new epoch"
            )
        if self._start.offset and now != then:
            raise CheckpointError(
                f"the state was taken in the middle of a batch of {then[1]} on {then[0]} processes, which cannot be "
                f"continued with batches of {now[1]} on {now[0]}"
            )


def first_process(value: Any) -> Any:
    """The value that the process with rank 0 has; all of them have to call this."""
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]
