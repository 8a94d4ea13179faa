"""What processes that evaluate together tell each other: all parts to the first one, its figures to all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from simtrain.errors import DataError

T = TypeVar("T")

CHUNK = 4096


def n_processes() -> int:
    """How many processes evaluate together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_rank() -> int:
    """Number of this process."""
    return dist.get_rank() if n_processes() > 1 else 0


def gathered_objects(part: T) -> list[T] | None:
    """Parts of all processes in the first one; None in the others."""
    parts = objects_of_all(part)
    return parts if process_rank() == 0 else None


def objects_of_all(part: T) -> list[T]:
    """Parts of all processes, in all of them."""
    if n_processes() == 1:
        return [part]
    parts: list[Any] = [None] * n_processes()
    dist.all_gather_object(parts, part)
    return parts


def shared_object(value: Any) -> Any:
    """What the first process has, in all of them."""
    if n_processes() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, device=_device())
    return box[0]


def by_first_process(compute: Callable[[], T]) -> T:
    """What the first process computes, in all of them; an error there is one everywhere, and nobody waits.

    Raises:
        DataError: Another process than the first one learns of an error there.
    """
    outcome: Any = None
    if process_rank() == 0:
        try:
            outcome = compute()
        except Exception as error:
            shared_object((None, str(error)))
            raise
    outcome, message = shared_object((outcome, None))
    if message is not None:
        raise DataError(f"the first process could not measure: {message}")
    value: T = outcome
    return value


def gathered_chunks(rows: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Rows of all processes, some at a time, so that no process has to hold more than it wants to keep.

    All processes must walk through it to the end.

    Args:
        rows: This process's, shape ``(rows, ...)``; numbers of rows may differ.

    Yields:
        Number of a process, and rows of its, in order.
    """
    if n_processes() == 1:
        yield from ((0, chunk) for chunk in torch.split(rows, CHUNK) if len(chunk))
        return
    sizes = [torch.zeros(2, dtype=torch.long, device=_device()) for _ in range(n_processes())]
    width = rows.shape[1] if len(rows) and rows.ndim == 2 else 0
    dist.all_gather(sizes, torch.tensor([len(rows), width], device=_device()))
    counts = [int(size[0]) for size in sizes]
    if rows.ndim == 2 and not len(rows):  # a process without rows does not know how wide they are
        rows = rows.new_zeros(0, max(int(size[1]) for size in sizes))
    for start in range(0, max(counts), CHUNK):
        height = min(CHUNK, max(counts) - start)
        mine = rows[start : start + height]
        padded = torch.zeros(height, *rows.shape[1:], dtype=rows.dtype, device=_device())
        padded[: len(mine)] = mine
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        for rank, (part, count) in enumerate(zip(parts, counts, strict=True)):
            if count > start:
                yield rank, part[: count - start].cpu()


def _device() -> torch.device:
    # Some backends move tensors of one kind of device only.
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
