"""How one order of samples is dealt out to several processes."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch.distributed as dist

from simtrain.errors import DataError

#: What is done with samples that cannot be shared out evenly.
Remainder = Literal["share", "repeat", "drop"]


class World(NamedTuple):
    """The processes that train together.

    Attributes:
        rank: Number of this one.
        size: How many there are.
    """

    rank: int
    size: int


def current_world() -> World:
    """This process and its company, as torch.distributed knows them now."""
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return World(0, 1)


def deal(order: np.ndarray, world: World, batch_size: int, remainder: Remainder) -> np.ndarray:
    """Part of one process in an order of samples.

    The order is cut into global batches of ``batch_size`` samples a process, and each process takes its consecutive
    part of each: joined by rank, the processes' batches are the batch that a single process would have.

    Args:
        order: Sample numbers for all processes.
        world: Which process this is.
        batch_size: Samples in a batch of one process.
        remainder: What to do with the last, smaller global batch where it is no multiple of the number of processes:
            ``"share"`` gives some processes one sample more, ``"repeat"`` fills up from the order's beginning,
            ``"drop"`` leaves the odd ones out.

    Returns:
        Sample numbers for this process.

    Raises:
        DataError: The last batch has a sample for some processes only, and is to be shared: the others would wait
            for ever.

    Example:
        >>> deal(np.arange(10), World(0, 2), 3, "share"), deal(np.arange(10), World(1, 2), 3, "share")
        (array([0, 1, 2, 6, 7]), array([3, 4, 5, 8, 9]))
    """
    share_length(len(order), world, batch_size, remainder)
    n_whole = len(order) - len(order) % (world.size * batch_size)
    whole = order[:n_whole].reshape(-1, world.size, batch_size)[:, world.rank].reshape(-1)
    rest, odd = order[n_whole:], (len(order) - n_whole) % world.size
    if odd and remainder == "repeat":
        rest = np.concatenate([rest, np.resize(order, world.size - odd)])
    if odd and remainder == "drop":
        rest = rest[:-odd]
    return np.concatenate([whole, np.array_split(rest, world.size)[world.rank]])


def share_length(total: int, world: World, batch_size: int, remainder: Remainder) -> int:
    """How many of ``total`` samples :func:`deal` gives to a process."""
    n_batches, rest = divmod(total, world.size * batch_size)
    each, odd = divmod(rest, world.size)
    if odd and remainder == "repeat":
        each += 1
    if odd and remainder == "share":
        if each == 0:
            raise DataError(
                f"{total} samples in batches of {batch_size} leave {odd} for {world.size} processes: the others would "
                "have a batch less, and training would hang; choose another batch size, or remainder='drop' "
                "(drop_last=True of a loader) or 'repeat' of the sampler"
            )
        each += world.rank < odd
    return n_batches * batch_size + each
