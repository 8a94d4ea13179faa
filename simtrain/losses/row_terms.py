"""What a loss makes of a block of similarities: its value, and its slope by each of them.

A block holds the similarities of some anchors (rows) to all candidates (columns). What is no negative of a row is
``-inf`` in it, and its positives are listed beside it: of all pairs of items few are positives, and looking through a
mask of the whole block for them would cost as much as the similarities themselves.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

#: Columns whose maximum is taken together, to find the few large entries of a block.
_FOLD = 64


class Positives(NamedTuple):
    """The positives of a block, in the order of its rows.

    Attributes:
        rows: Row of each, shape ``(n,)``.
        columns: Column of each, shape ``(n,)``.
        values: Similarity of each, shape ``(n,)``.
    """

    rows: Int64[Tensor, " n"]
    columns: Int64[Tensor, " n"]
    values: Float[Tensor, " n"]


class Part(NamedTuple):
    """A part of a loss over a block: the loss is the sum of ``total`` over all blocks, divided by that of ``count``.

    Attributes:
        total: A scalar.
        count: A scalar: how many terms were added up.
        rows: Rows of the listed slopes, shape ``(n,)``.
        columns: Columns of the listed slopes, shape ``(n,)``.
        slopes: Derivatives of ``total`` by the similarities at those places, shape ``(n,)``. No place comes twice,
            unless ``dense`` is None.
        dense: Derivatives by all similarities, to which the listed ones are added; None for zeros.
    """

    total: Float[Tensor, ""]
    count: Tensor  # type: ignore[assignment]  # tuples have a method of that name
    rows: Int64[Tensor, " n"]
    columns: Int64[Tensor, " n"]
    slopes: Float[Tensor, " n"]
    dense: Float[Tensor, "rows columns"] | None = None

    def dense_slope(self, like: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
        """Derivatives by all similarities, written into ``dense`` where there is one."""
        dense = torch.zeros_like(like) if self.dense is None else self.dense
        return dense.index_put_((self.rows, self.columns), self.slopes.to(dense.dtype), accumulate=True)


def take_positives(
    block: Float[Tensor, "rows columns"], rows: Int64[Tensor, " n"], columns: Int64[Tensor, " n"]
) -> Positives:
    """List the positives of a block, and blank them in it, so that it holds negatives only.

    Args:
        block: Similarities; ``-inf`` where a column takes no part for a row.
        rows: Rows of the positives.
        columns: Columns of the positives. Those that take no part are left out.

    Example:
        >>> block = torch.tensor([[-torch.inf, 0.5, 0.1]])
        >>> take_positives(block, torch.tensor([0, 0]), torch.tensor([0, 1])).values, block
        (tensor([0.5000]), tensor([[  -inf,   -inf, 0.1000]]))
    """
    values = block[rows, columns]
    kept = values != -torch.inf
    if not bool(kept.all()):
        rows, columns, values = rows[kept], columns[kept], values[kept]
    block[rows, columns] = -torch.inf
    return Positives(rows, columns, values)


def row_maximum(block: Float[Tensor, "rows columns"]) -> tuple[Float[Tensor, " rows"], Int64[Tensor, " rows"]]:
    """Largest entry of each row, and its column.

    Example:
        >>> row_maximum(torch.tensor([[0.1, 0.3, 0.2]]))
        (tensor([0.3000]), tensor([1]))
    """
    # Torch's maximum with an index is several times slower than that without: look for the index in one fold only.
    n_rows, n_columns = block.shape
    n_folds = n_columns // _FOLD
    if n_folds < 2:
        values, columns = block.max(dim=1)
        return values, columns
    folds = block[:, : n_folds * _FOLD].view(n_rows, n_folds, _FOLD)
    values, fold = folds.amax(dim=2).max(dim=1)
    columns = folds[torch.arange(n_rows, device=block.device), fold].argmax(dim=1).add_(fold, alpha=_FOLD)
    if n_folds * _FOLD == n_columns:
        return values, columns
    rest, rest_columns = block[:, n_folds * _FOLD :].max(dim=1)
    # Not `>`: a NaN is to be seen.
    keeps = values >= rest
    return torch.where(keeps, values, rest), torch.where(keeps, columns, rest_columns + n_folds * _FOLD)


def entries_above(
    block: Float[Tensor, "rows columns"], limits: Float[Tensor, " rows"]
) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"]] | None:
    """Places of the entries above a limit of their row, or None where they are so many that a list does not pay.

    Example:
        >>> entries_above(torch.tensor([[0.1, 0.3, 0.2]]), torch.tensor([0.25]))
        (tensor([0]), tensor([1]))
    """
    n_rows, n_columns = block.shape
    n_folds = n_columns // _FOLD
    covered = n_folds * _FOLD
    folds = block[:, :covered].view(n_rows, n_folds, _FOLD)
    row, fold = (folds.amax(dim=2) > limits.unsqueeze(1)).nonzero().unbind(1)
    if len(row) > n_rows * n_folds // 4:
        return None
    hit, offset = (folds[row, fold] > limits[row].unsqueeze(1)).nonzero().unbind(1)
    rest_rows, rest_columns = (block[:, covered:] > limits.unsqueeze(1)).nonzero().unbind(1)
    if len(hit) > n_rows * n_columns // 16:
        return None
    return torch.cat([row[hit], rest_rows]), torch.cat([fold[hit] * _FOLD + offset, rest_columns + covered])


def mask_places(mask: Bool[Tensor, "rows columns"]) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"]]:
    """Rows and columns of what is true."""
    rows, columns = mask.nonzero().unbind(dim=1)
    return rows, columns
