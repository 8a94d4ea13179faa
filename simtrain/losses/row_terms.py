"""What a loss makes of a block of similarities: its value, and its slope by each of them.

A block holds the similarities of some anchors (rows) to all candidates (columns). What is no negative of a row is
``-inf`` in it, and its positives are listed beside it: of all pairs of items few are positives, and looking through a
mask of the whole block for them would cost as much as the similarities themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

#: Columns whose maximum is taken together, to find the few large entries of a block.
_FOLD = 64
#: Of fewer folds, the maximum is found at once.
_FEWEST_FOLDS = 4
#: Entries of the slices of a block that are worked on at a time.
_SLICE = 1 << 17


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

    def where(self, kept: Bool[Tensor, " n"]) -> Positives:
        """Some of them.

        Example:
            >>> both = Positives(torch.tensor([0, 1]), torch.tensor([5, 7]), torch.tensor([0.5, 0.1]))
            >>> both.where(both.values > 0.2)
            Positives(rows=tensor([0]), columns=tensor([5]), values=tensor([0.5000]))
        """
        # Found once: each look-up by a mask would search it anew.
        places = kept.nonzero().view(-1)
        if len(places) == len(kept):
            return self
        return Positives(*(given.index_select(0, places) for given in self))


class Part(NamedTuple):
    """A part of a loss over a block: the loss is the sum of ``total`` over all blocks, divided by that of ``count``.

    Attributes:
        total: A scalar.
        count: A scalar: how many terms were added up.
        rows: Rows of the listed slopes, in order, shape ``(n,)``.
        columns: Columns of the listed slopes, shape ``(n,)``.
        slopes: Derivatives of ``total`` by the similarities at those places, shape ``(n,)``.
        dense: Derivatives by all similarities, to which the listed ones are added; None for zeros.
        active: A scalar: how many of the terms are other than zero, for the log. None: all that ``count`` counts.
    """

    total: Float[Tensor, ""]
    count: Tensor  # type: ignore[assignment]  # tuples have a method of that name
    rows: Int64[Tensor, " n"]
    columns: Int64[Tensor, " n"]
    slopes: Float[Tensor, " n"]
    dense: Float[Tensor, "rows columns"] | None = None
    active: Tensor | None = None

    @property
    def n_active(self) -> Tensor:
        """How many terms are other than zero; a scalar."""
        return self.count if self.active is None else self.active

    def dense_slope(self, block: Float[Tensor, "rows columns"], *, is_free: bool) -> Float[Tensor, "rows columns"]:
        """Derivatives by all similarities, written into ``dense``; without one, into the block where that is free."""
        if self.dense is not None:
            return self.add_listed(self.dense)
        return self.add_listed(block.zero_() if is_free else torch.zeros_like(block))

    def add_listed(self, slope: Float[Tensor, "rows columns"], share: Tensor | None = None) -> Tensor:
        """Add the listed slopes, times a share, to a matrix of slopes; it is written to, and returned."""
        slopes = self.slopes.to(slope.dtype) if share is None else self.slopes.to(slope.dtype) * share
        slope.view(-1).index_add_(0, self.columns.add(self.rows, alpha=slope.shape[1]), slopes)
        return slope


#: Turns a block of similarities, without its positives, and those into the parts of a loss.
RowTerms = Callable[[Tensor, Positives], Sequence[Part]]


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
    places, entries = columns.add(rows, alpha=block.shape[1]), block.view(-1)
    values = entries.index_select(0, places)
    entries.index_fill_(0, places, -torch.inf)
    found = Positives(rows, columns, values)
    return found.where(values != -torch.inf)


def row_maximum(block: Float[Tensor, "rows columns"]) -> tuple[Float[Tensor, " rows"], Int64[Tensor, " rows"]]:
    """Largest entry of each row, and its column.

    Example:
        >>> row_maximum(torch.tensor([[0.1, 0.3, 0.2]]))
        (tensor([0.3000]), tensor([1]))
    """
    return _row_extreme(block, torch.amax, torch.max)


def row_minimum(block: Float[Tensor, "rows columns"]) -> tuple[Float[Tensor, " rows"], Int64[Tensor, " rows"]]:
    """Smallest entry of each row, and its column.

    Example:
        >>> row_minimum(torch.tensor([[0.1, 0.3, 0.2]]))
        (tensor([0.1000]), tensor([0]))
    """
    return _row_extreme(block, torch.amin, torch.min)


def _row_extreme(
    block: Tensor, extreme: Callable[..., Tensor], with_index: Callable[..., tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    # Torch's maximum with an index is several times slower than that without: look for the index in one fold only.
    n_rows, n_columns = block.shape
    n_folds = n_columns // _FOLD
    if n_folds < _FEWEST_FOLDS:
        values, columns = with_index(block, dim=1)
        return values, columns
    folds = block[:, : n_folds * _FOLD].view(n_rows, n_folds, _FOLD)
    values, fold = with_index(extreme(folds, dim=2), dim=1)
    candidates = folds.gather(1, fold.view(-1, 1, 1).expand(-1, 1, _FOLD)).squeeze(1)
    columns = with_index(candidates, dim=1)[1].add_(fold, alpha=_FOLD)
    if n_folds * _FOLD == n_columns:
        return values, columns
    rest, rest_columns = with_index(block[:, n_folds * _FOLD :], dim=1)
    # Not `>`: a NaN is to be seen, and equals none.
    keeps = values == extreme(torch.stack([values, rest]), dim=0)
    return torch.where(keeps, values, rest), torch.where(keeps, columns, rest_columns + n_folds * _FOLD)


def fold_maxima(block: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows folds"]:
    """Largest entry of each fold of a row's columns, the last of which may be shorter, or empty.

    Example:
        >>> fold_maxima(torch.tensor([[0.1, 0.3, 0.2]]))
        tensor([[0.3000]])
    """
    n_rows, n_columns = block.shape
    covered = n_columns // _FOLD * _FOLD
    maxima = block[:, :covered].view(n_rows, covered // _FOLD, _FOLD).amax(dim=2)
    if covered == n_columns:
        return maxima
    return torch.cat([maxima, block[:, covered:].amax(dim=1, keepdim=True)], dim=1)


def entries_above(
    block: Float[Tensor, "rows columns"],
    limits: Float[Tensor, " rows"] | float,
    maxima: Float[Tensor, "rows folds"] | None = None,
) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"]] | None:
    """Places of the entries above a limit, row by row, or None where they are so many that a list does not pay.

    Args:
        block: Shape ``(rows, columns)``.
        limits: One of each row, shape ``(rows,)``, or one number.
        maxima: The block's :func:`fold_maxima`. Default: found here.

    Example:
        >>> entries_above(torch.tensor([[0.1, 0.3, 0.2]]), 0.25)
        (tensor([0]), tensor([1]))
    """
    n_rows, n_columns = block.shape
    n_folds = n_columns // _FOLD
    covered = n_folds * _FOLD
    folds = block[:, :covered].view(n_rows, n_folds, _FOLD)
    maxima = fold_maxima(block) if maxima is None else maxima
    of_rows = limits.unsqueeze(1) if isinstance(limits, Tensor) else limits
    row, fold = (maxima[:, :n_folds] > of_rows).nonzero().unbind(1)
    if len(row) > n_rows * n_folds // 4:
        return None
    of_folds = of_rows.index_select(0, row) if isinstance(of_rows, Tensor) else of_rows
    hit, offset = (folds[row, fold] > of_folds).nonzero().unbind(1)
    if len(hit) > n_rows * n_columns // 16:
        return None
    rows, columns = row.index_select(0, hit), offset.add_(fold.index_select(0, hit), alpha=_FOLD)
    if covered == n_columns:
        return rows, columns
    rest_rows, rest_columns = (block[:, covered:] > of_rows).nonzero().unbind(1)
    rows, order = torch.cat([rows, rest_rows]).sort(stable=True)
    return rows, torch.cat([columns, rest_columns + covered]).index_select(0, order)


def noted_terms(terms: RowTerms, note: Callable[..., None]) -> RowTerms:
    """Terms that leave the number of the active ones, of all blocks together, with ``note(n_active=...)``."""
    n_active: list[Tensor] = []

    def noting(negatives: Tensor, positives: Positives) -> Sequence[Part]:
        parts = terms(negatives, positives)
        n_active.extend(part.n_active for part in parts)
        note(n_active=n_active[0] if len(n_active) == 1 else torch.stack(n_active).sum())
        return parts

    return noting


def number_of(listed: Tensor) -> Tensor:
    """Length of a list, as a scalar where it lies.

    Example:
        >>> number_of(torch.zeros(3))
        tensor(3)
    """
    return torch.full((), listed.shape[0], dtype=torch.long, device=listed.device)


def mask_places(mask: Bool[Tensor, "rows columns"]) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"]]:
    """Rows and columns of what is true."""
    rows, columns = mask.nonzero().unbind(dim=1)
    return rows, columns


def slices(block: Float[Tensor, "rows columns"]) -> list[slice]:
    """Some rows at a time, so that what is computed from them stays small, and in the cache.

    Example:
        >>> slices(torch.zeros(3, 100_000))
        [slice(0, 1, None), slice(1, 2, None), slice(2, 3, None)]
    """
    size = max(_SLICE // max(block.shape[1], 1), 1)
    return [slice(first, min(first + size, len(block))) for first in range(0, len(block), size)]


def nan_of(values: Float[Tensor, "rows columns"]) -> Float[Tensor, ""]:
    """Zero, or NaN where a value is not finite: it is to be noticed, also where sorting and counting pass it over.

    Example:
        >>> nan_of(torch.tensor([[1.0, torch.inf]]))
        tensor(nan)
    """
    return values.sum() * 0
