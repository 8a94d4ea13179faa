"""Rows of different lengths, as one flat tensor: what the token states of texts are stored as."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor


class Ragged(NamedTuple):
    """Items of several vectors each.

    Attributes:
        values: The vectors of all items, one after the other, shape ``(vectors, dim)``.
        lengths: Number of vectors of each item, int64, shape ``(n,)``.
    """

    values: Shaped[Tensor, "vectors dim"]
    lengths: Int64[Tensor, " n"]


class Padded(NamedTuple):
    """Items of several vectors each, padded with zeros behind.

    Attributes:
        values: Shape ``(n, longest, dim)``.
        mask: 1 for vectors, 0 for padding, int64, shape ``(n, longest)``.
    """

    values: Shaped[Tensor, "n longest dim"]
    mask: Int64[Tensor, "n longest"]


def ragged(values: Shaped[Tensor, "n longest dim"], mask: Shaped[Tensor, "n longest"]) -> Ragged:
    """Leave padding out, on whichever side it is.

    Example:
        >>> ragged(torch.tensor([[[1.0], [2.0]], [[9.0], [3.0]]]), torch.tensor([[1, 1], [0, 1]]))
        Ragged(values=tensor([[1.],
                [2.],
                [3.]]), lengths=tensor([2, 1]))
    """
    kept = mask.bool()
    return Ragged(values[kept], kept.sum(1))


def padded(values: Shaped[Tensor, "vectors dim"], lengths: Int64[Tensor, " n"]) -> Padded:
    """Put padding behind each item; the reverse of :func:`ragged`.

    Example:
        >>> padded(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([2, 1])).values.squeeze(2)
        tensor([[1., 2.],
                [3., 0.]])
    """
    mask = length_mask(lengths)
    filled = values.new_zeros(*mask.shape, values.shape[1])
    filled[mask] = values
    return Padded(filled, mask.long())


def length_mask(lengths: Int64[Tensor, " n"]) -> Shaped[Tensor, "n longest"]:
    """Mask of items of these lengths, as wide as the longest.

    Example:
        >>> length_mask(torch.tensor([2, 1])).long()
        tensor([[1, 1],
                [1, 0]])
    """
    longest = int(lengths.max()) if len(lengths) else 0
    return torch.arange(longest, device=lengths.device) < lengths.unsqueeze(1)


def places(starts: Int64[Tensor, " n"], lengths: Int64[Tensor, " n"]) -> Int64[Tensor, " vectors"]:
    """Number of each vector of items that begin at ``starts``, item after item.

    Example:
        >>> places(torch.tensor([10, 4]), torch.tensor([2, 3])).tolist()
        [10, 11, 4, 5, 6]
    """
    before = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum())) + (starts - before).repeat_interleave(lengths)
