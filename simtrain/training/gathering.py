"""One batch out of the parts that the processes of a training have, so that every loss is over the global batch."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from simtrain.data.batches import Targets
from simtrain.errors import DataError


def global_batch(
    embeddings: Float[Tensor, "rows dim"], targets: Targets
) -> tuple[Float[Tensor, "global_rows dim"], Targets]:
    """Embeddings and targets of all processes, in the order in which one process would have them.

    Gradients flow back into this process's embeddings, times the number of processes, by which distributed training
    divides the sum of all processes' gradients: so they add up to those of one process with the global batch. Batches
    may differ in size. Everything else of the loss (its own parameters, say) has the whole gradient in each process.

    Args:
        embeddings: Shape ``(rows, dim)``.
        targets: Targets of this process's batch: a row of each is for a row of the embeddings or for a pair.

    Returns:
        ``(embeddings, targets)``; the given ones where there is one process.

    Raises:
        DataError: The processes' batches are of different kinds, or a target has a length of its own.
    """
    if n_processes() == 1:
        return embeddings, targets
    n_pairs = len(targets["pairs"]) if "pairs" in targets else 0
    sizes = _sizes(embeddings, n_pairs, targets)
    rows = _Layout([rows for rows, _ in sizes], [rows - pairs for rows, pairs in sizes], n_pairs > 0, embeddings.device)
    pairs = _Layout([pairs for _, pairs in sizes], rows.firsts, n_pairs > 0, embeddings.device, pairs=True)
    joined: Tensor = _Gather.apply(embeddings, rows.sizes)  # type: ignore[no-untyped-call]
    local = _has_local_groups(targets)
    gathered = {name: _target(name, target, rows, pairs) for name, target in sorted(targets.items())}
    if local:
        gathered["groups"] = _local_groups(sum(rows.firsts), sum(rows.sizes), embeddings.device)
    return joined[rows.order], {name: gathered[name] for name in targets}


def n_processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def lasting_groups(targets: Targets, items: Tensor) -> Tensor:
    """Groups that mean the same in every batch.

    Those of a batch of triplets are numbered within it; the number of an anchor's item then stands for its group.

    Args:
        targets: Targets with ``groups``.
        items: Number of each row's item.
    """
    if not _has_local_groups(targets):
        return targets["groups"]
    n_anchors = len(items) - len(targets["pairs"])
    return torch.cat([items[:n_anchors], items[:n_anchors], items[2 * n_anchors :]])


class _Layout:
    """Where the rows of each process go in the global batch.

    A batch of one process is made of segments: first all queries (or anchors), then all documents (or positives),
    then the negatives. The global batch has those of all processes segment by segment, too.
    """

    def __init__(
        self, sizes: list[int], firsts: list[int], segmented: bool, device: torch.device, pairs: bool = False
    ) -> None:
        self.sizes, self.device = sizes, device
        n_heads = 1 if pairs else 2
        standard = segmented and all(0 <= n_heads * first <= size for size, first in zip(sizes, firsts, strict=True))
        self.firsts = firsts if standard else [0] * len(sizes)
        starts = [sum(sizes[:rank]) for rank in range(len(sizes))]
        segments: list[list[range]] = [[] for _ in range(n_heads + 1)]
        for start, size, first in zip(starts, sizes, self.firsts, strict=True):
            edges = [start + head * first for head in range(n_heads + 1)] + [start + size]
            for segment, (low, high) in enumerate(itertools.pairwise(edges)):
                segments[segment].append(range(low, high))
        numbers = [number for segment in segments for part in segment for number in part]
        self.order = torch.tensor(numbers, dtype=torch.long, device=device)
        self.places = torch.empty_like(self.order)
        self.places[self.order] = torch.arange(len(numbers), device=device)
        self.start = starts[dist.get_rank()]


def _sizes(embeddings: Tensor, n_pairs: int, targets: Targets) -> list[tuple[int, int]]:
    mine = torch.tensor([len(embeddings), n_pairs, _kind(targets)], device=embeddings.device)
    all_sizes = [torch.empty_like(mine) for _ in range(n_processes())]
    dist.all_gather(all_sizes, mine)
    listed = torch.stack(all_sizes).tolist()
    if len({kind for _, _, kind in listed}) > 1:
        raise DataError(
            f"the processes' batches have different targets, here {sorted(targets)}; give all processes loaders of one "
            f"kind of samples"
        )
    return [(rows, pairs) for rows, pairs, _ in listed]


def _kind(targets: Targets) -> int:
    # A number that processes can compare; Python's own hash of texts differs between them.
    return sum((position + 1) * byte for position, byte in enumerate(" ".join(sorted(targets)).encode()))


def _target(name: str, target: Tensor, rows: _Layout, pairs: _Layout) -> Tensor:
    rank = dist.get_rank()
    if name == "pairs":
        return gather_rows(rows.places[target + rows.start], pairs.sizes)[pairs.order]
    of_pairs = name == "labels" or (len(target) == pairs.sizes[rank] and name not in ("groups", "subgroups", "items"))
    layout = pairs if of_pairs and pairs.sizes[rank] else rows
    if len(target) != layout.sizes[rank]:
        raise DataError(
            f"the target {name!r} has {len(target)} rows, for {rows.sizes[rank]} embeddings and {pairs.sizes[rank]} "
            f"pairs: it cannot be gathered from several processes; give it a row for each embedding or each pair"
        )
    return gather_rows(target, layout.sizes)[layout.order]


def gather_rows(tensor: Tensor, sizes: list[int]) -> Tensor:
    """Rows of all processes, one process after the other.

    Args:
        tensor: This process's rows.
        sizes: How many rows each process has.
    """
    most = max(sizes)
    padded = tensor.new_zeros(most, *tensor.shape[1:])
    padded[: len(tensor)] = tensor.detach()
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


class _Gather(torch.autograd.Function):
    """Rows of all processes. Each computes the same loss, so the gradient of its own rows is all that it needs."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, sizes: list[int]) -> Tensor:
        rank = dist.get_rank()
        ctx.own, ctx.n_processes = slice(sum(sizes[:rank]), sum(sizes[: rank + 1])), len(sizes)
        return gather_rows(tensor, sizes)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return grad_outputs[0][ctx.own] * ctx.n_processes, None


def _has_local_groups(targets: Targets) -> bool:
    if "groups" not in targets or "pairs" not in targets:
        return False
    groups = targets["groups"]
    n_anchors = len(groups) - len(targets["pairs"])
    if not 0 < 2 * n_anchors <= len(groups):
        return False
    return torch.equal(groups, _local_groups(n_anchors, len(groups), groups.device))


def _local_groups(n_anchors: int, n_rows: int, device: torch.device) -> Tensor:
    anchors = torch.arange(n_anchors, device=device)
    return torch.cat([anchors, anchors, torch.arange(n_anchors, n_rows - n_anchors, device=device)])
