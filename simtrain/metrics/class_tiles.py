"""Items sorted into tiles of about equal size that hold whole classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor


@dataclass(frozen=True)
class ClassTile:
    """Some items, class by class.

    Attributes:
        items: Their indices, shape ``(items,)``.
        first: Where in the tile the item's class begins, shape ``(items,)``.
        size: How many items its class has, shape ``(items,)``.
    """

    items: Int64[Tensor, " items"]
    first: Int64[Tensor, " items"]
    size: Int64[Tensor, " items"]


def class_tiles(labels: Int64[Tensor, " items"], side: int, step: int = 1) -> tuple[int, list[ClassTile]]:
    """Sort items into as few tiles of at most ``side`` as hold whole classes; no class may have more items.

    Classes of about the same size stand together. Among these the order is random, always the same, so that one tile
    tells what to expect of the others.

    Args:
        labels: Class of each item.
        side: Items a tile, at most.
        step: What the side is to be a multiple of.

    Returns:
        The least side that needs no more tiles, so that few places are empty; and the tiles.

    Example:
        >>> side, tiles = class_tiles(torch.tensor([7, 8, 7, 9]), side=3)
        >>> side, [tile.items.tolist() for tile in tiles]
        (2, [[0, 2], [3, 1]])
    """
    found = np.unique(labels.numpy(), return_inverse=True, return_counts=True)
    numbers, sizes = torch.from_numpy(found[1]), torch.from_numpy(found[2])
    shuffled = torch.randperm(len(sizes), generator=torch.Generator().manual_seed(0))
    order = shuffled[(4 * sizes[shuffled].double().log2()).floor().argsort(descending=True, stable=True)]
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    items = place[numbers].argsort(stable=True)
    sizes = sizes[order]
    size, first = sizes.repeat_interleave(sizes), (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    side, bounds = _least_side(sizes.tolist(), side, step)
    return side, [ClassTile(items[start:stop], first[start:stop] - start, size[start:stop]) for start, stop in bounds]


def _least_side(sizes: list[int], side: int, step: int) -> tuple[int, list[tuple[int, int]]]:
    tiles = list(_filled(sizes, side))
    least = max(sizes, default=1)
    while side - step >= least and len(smaller := list(_filled(sizes, side - step))) == len(tiles):
        side, tiles = side - step, smaller
    return side, tiles


def _filled(sizes: list[int], side: int) -> Iterator[tuple[int, int]]:
    start = stop = 0
    for size in sizes:
        if stop + size - start > side:
            yield start, stop
            start = stop
        stop += size
    if stop > start:
        yield start, stop
