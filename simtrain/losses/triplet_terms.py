"""The formulas of the triplet loss, over a block of similarities; none needs more than anchors x candidates.

A distance is a constant minus a similarity, so that ``d_ap - d_an + margin`` is ``s_an - s_ap + margin``. An anchor
that lacks positives or negatives takes no part.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import softplus, threshold

from simtrain.losses.row_terms import Part, Positives, row_maximum, row_minimum, slices

#: Up to so many positives of an anchor, a pass over the block for each of them is cheaper than sorting the negatives.
_FEW_TO_SORT = 48
#: As above, than finding the place of each negative among the positives.
_FEW_TO_FIND = 20
#: Products of exponentials stay below the exponential of this, far from the largest float.
_LARGEST_EXPONENT = 60.0


def hard_triplets(
    negatives: Float[Tensor, "anchors candidates"], positives: Positives, *, margin: float = 0.5, soft: bool = False
) -> Part:
    """Each anchor with its farthest positive and its nearest negative; counted are anchors that have both.

    Args:
        negatives: Similarities, shape ``(anchors, candidates)``; ``-inf`` where a candidate is no negative.
        positives: The positives, in the order of the anchors.
        margin: By how much negatives are to be farther than positives.
        soft: ``softplus(d_ap - d_an)`` in place of ``relu(d_ap - d_an + margin)``.

    Example:
        >>> negatives = torch.tensor([[-torch.inf, -torch.inf, 0.4]])
        >>> one = Positives(torch.tensor([0]), torch.tensor([1]), torch.tensor([0.7]))
        >>> hard_triplets(negatives, one).total
        tensor(0.2000)
    """
    farthest, column = farthest_positive(positives, len(negatives))
    nearest, nearest_column = row_maximum(negatives)
    # Minus infinity where one of both is missing. A NaN stays, so that the loss becomes NaN too and is noticed.
    difference = nearest.sub_(farthest)
    count = (difference != -torch.inf).sum()
    anchors = torch.arange(len(negatives), device=negatives.device)
    return _of_pairs(difference, count, anchors, column, nearest_column, margin, soft)


def _of_pairs(
    differences: Tensor, count: Tensor, rows: Tensor, positive: Tensor, negative: Tensor, margin: float, soft: bool
) -> Part:
    penalty, steepness = _penalty(differences, margin, soft)
    return Part(
        penalty.sum(),
        count,
        torch.stack([rows, rows], dim=1).view(-1),
        torch.stack([positive, negative], dim=1).view(-1),
        torch.stack([-steepness, steepness], dim=1).view(-1),
        active=steepness.count_nonzero(),
    )


def farthest_positive(positives: Positives, n_rows: int) -> tuple[Float[Tensor, " rows"], Int64[Tensor, " rows"]]:
    """Smallest similarity of each row's positives, and its column; infinity, and any column, where there is none.

    Example:
        >>> several = Positives(torch.tensor([0, 0]), torch.tensor([3, 5]), torch.tensor([0.7, 0.2]))
        >>> farthest_positive(several, 2)
        (tensor([0.2000,    inf]), tensor([5, 0]))
    """
    rows, columns, values = positives
    farthest = values.new_full((n_rows,), torch.inf).scatter_reduce_(0, rows, values, "amin")
    # Among equals, the first, which is written last: any would do, but it is always the same.
    is_farthest = (values == farthest.index_select(0, rows)).nonzero().view(-1).flip(0)
    column = rows.new_zeros(n_rows)
    column.index_copy_(0, rows.index_select(0, is_farthest), columns.index_select(0, is_farthest))
    return farthest, column


def semi_hard_triplets(
    negatives: Float[Tensor, "anchors candidates"], positives: Positives, *, margin: float = 0.5, soft: bool = False
) -> Part:
    """Each anchor and positive with the nearest negative beyond the positive; counted are those pairs.

    Where every negative is nearer than the positive, the farthest negative is taken: the semi-hard negative of
    FaceNet does not exist there, and its authors leave the choice open.

    Args:
        negatives: Similarities, shape ``(anchors, candidates)``; ``-inf`` where a candidate is no negative.
        positives: The positives, in the order of the anchors.
        margin: By how much negatives are to be farther than positives.
        soft: ``softplus(d_ap - d_an)`` in place of ``relu(d_ap - d_an + margin)``.

    Example:
        >>> negatives = torch.tensor([[-torch.inf, -torch.inf, 0.8, 0.4]])
        >>> one = Positives(torch.tensor([0]), torch.tensor([1]), torch.tensor([0.7]))
        >>> semi_hard_triplets(negatives, one).total
        tensor(0.2000)
    """
    rows, columns, values = positives
    table, places = by_row(rows, values, len(negatives))
    find = _beyond_each if table.shape[1] <= _FEW_TO_SORT else _beyond_sorted
    found = [find(negatives[some], table[some]) for some in slices(negatives)]
    places = places.add_(rows, alpha=table.shape[1])
    gap, column = (torch.cat(part).view(-1).index_select(0, places) for part in zip(*found, strict=True))
    # Not `isfinite`: a NaN is kept, so that the loss becomes NaN too and is noticed.
    return _of_pairs(gap.neg_(), (gap != -torch.inf).sum(), rows, columns, column, margin, soft)


def _beyond_each(negatives: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """By how much the nearest negative is beyond each positive, and its column: one pass for each positive."""
    gaps, columns = torch.empty_like(table), torch.empty_like(table, dtype=torch.long)
    for place in range(table.shape[1]):
        gap = threshold(table[:, place, None] - negatives, 0, torch.inf, inplace=True)
        gaps[:, place], columns[:, place] = row_minimum(gap)
    none_beyond = (gaps == torch.inf) & (table != torch.inf)
    if bool(none_beyond.any()):
        farthest, column = row_minimum(torch.where(negatives == -torch.inf, torch.inf, negatives))
        # Without any negative, the gap stays infinite.
        gaps = torch.where(none_beyond, table - farthest.unsqueeze(1), gaps)
        gaps.masked_fill_(gaps == -torch.inf, torch.inf)
        columns = torch.where(none_beyond, column.unsqueeze(1), columns)
    return gaps, columns


def _beyond_sorted(negatives: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`_beyond_each`, for many positives: the entry before the place where each would stand."""
    ordered, order = negatives.sort(dim=1)
    n_columns = ordered.shape[1]
    first = torch.searchsorted(ordered, torch.full_like(ordered[:, :1], -torch.inf), right=True)
    chosen = torch.maximum(torch.searchsorted(ordered, table).sub_(1), first).clamp_(max=n_columns - 1)
    gaps = (table - ordered.gather(1, chosen)).masked_fill_(first == n_columns, torch.inf)
    return gaps, order.gather(1, chosen)


def all_triplets(
    negatives: Float[Tensor, "anchors candidates"], positives: Positives, *, margin: float = 0.5, soft: bool = False
) -> Part:
    """Every triplet; counted are the active ones, those with a loss above zero (all of them when ``soft``).

    In the sum over active triplets, each similarity is multiplied by the number of them that it is in. Of an anchor's
    few positives, each is compared with all negatives; many are sorted, and the place of a negative among them says
    in how many triplets it is. No triplet is ever written down, and the slopes take the place of the similarities.

    Args:
        negatives: Similarities, shape ``(anchors, candidates)``; ``-inf`` where a candidate is no negative.
        positives: The positives, in the order of the anchors.
        margin: By how much negatives are to be farther than positives.
        soft: ``softplus(d_ap - d_an)`` in place of ``relu(d_ap - d_an + margin)``.

    Example:
        >>> negatives = torch.tensor([[-torch.inf, -torch.inf, 0.8, 0.4]])
        >>> one = Positives(torch.tensor([0]), torch.tensor([1]), torch.tensor([0.7]))
        >>> all_triplets(negatives, one).total  # 0.6 + 0.2
        tensor(0.8000)
    """
    rows, columns, values = positives
    table, places = by_row(rows, values, len(negatives))
    places = places.add_(rows, alpha=table.shape[1])
    n_negatives = _n_negatives(negatives) if soft else None
    if soft:
        found = [_soft_with_each(negatives[some], table[some]) for some in slices(negatives)]
    else:
        count_with = _active_with_each if table.shape[1] <= _FEW_TO_FIND else _active_with_sorted
        found = [count_with(negatives[some], table[some] - margin) for some in slices(negatives)]
    totals, steepness_of = zip(*found, strict=True)
    steepness = torch.cat(steepness_of).view(-1).index_select(0, places)
    # Whole numbers up to the number of candidates are exact in any floating point type, their sum is not.
    count = steepness.long().sum() if n_negatives is None else n_negatives.index_select(0, rows).sum()
    return Part(torch.stack(totals).sum(), count, rows, columns, -steepness, negatives)


def _active_with_each(negatives: Tensor, limits: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over the active triplets, and how many each limit is in; the negatives are overwritten by their numbers.

    One pass for each positive, in which all is done by vector instructions: cheaper than sorting while these are few.
    """
    total, slope, counts = negatives.new_zeros(()), torch.zeros_like(negatives), torch.empty_like(limits)
    for place in range(limits.shape[1]):
        active = (negatives - limits[:, place, None]).relu_()
        total += active.sum()
        active.sign_()
        counts[:, place] = active.sum(dim=1)
        slope += active
    negatives.copy_(slope)
    return total, counts


def _active_with_sorted(negatives: Tensor, limits: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`_active_with_each`, for many positives."""
    ordered, order = limits.sort(dim=1)
    within = torch.searchsorted(ordered, negatives)  # how many positives each negative is active with
    n_places = within.new_zeros(len(limits), limits.shape[1] + 1)
    n_places.scatter_add_(1, within, within.new_ones(1, 1).expand_as(within))
    n_after = n_places.flip(1).cumsum(1).flip(1)[:, 1:].to(limits.dtype)
    counts = torch.zeros_like(limits).scatter_(1, order, n_after)
    slope = within.to(negatives.dtype)
    # What is no negative is active with no positive: any finite number will do in its place.
    active = negatives.clamp_(min=torch.finfo(negatives.dtype).min).mul_(slope).sum()
    total = active - torch.where(counts > 0, counts * limits, 0).sum()
    negatives.copy_(slope)
    return total, counts


def _soft_with_each(negatives: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over all triplets, and each positive's steepness; the negatives are overwritten by theirs.

    ``exp(s_an - s_ap)`` is a product of two exponentials, of which few are needed, and the logarithm of many triplets
    is that of their product: ``log(1 + x) + log(1 + y) = log(1 + (x + y + xy))``.
    """
    shift = negatives.amax(dim=1, keepdim=True)
    shift.masked_fill_(shift == -torch.inf, 0)
    of_positives = (shift - table).exp_()  # 0 where there is none
    largest = float(of_positives.max())
    n_factors = int(_LARGEST_EXPONENT / math.log1p(largest)) if 0 < largest < math.inf else 0
    if n_factors == 0:
        return _softplus_with_each(negatives, table)
    of_negatives = (negatives - shift).exp_()
    total, slope = negatives.new_zeros(()), torch.zeros_like(negatives)
    steepness_of, product = torch.empty_like(table), torch.zeros_like(negatives)
    for place in range(table.shape[1]):
        power = of_negatives * of_positives[:, place, None]
        product.addcmul_(product, power).add_(power)
        if (place + 1) % n_factors == 0 or place + 1 == table.shape[1]:
            total += product.log1p_().sum()
            product.zero_()
        power /= power + 1
        steepness_of[:, place] = power.sum(dim=1)
        slope += power
    negatives.copy_(slope)
    return total, steepness_of


def _softplus_with_each(negatives: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`_soft_with_each`, where the exponentials are too large for products."""
    total, slope, steepness_of = negatives.new_zeros(()), torch.zeros_like(negatives), torch.empty_like(table)
    for place in range(table.shape[1]):
        difference = negatives - table[:, place, None]
        total += softplus(difference).sum()
        steepness = difference.sigmoid_()
        steepness_of[:, place] = steepness.sum(dim=1)
        slope += steepness
    negatives.copy_(slope)
    return total, steepness_of


def _n_negatives(negatives: Tensor) -> Tensor:
    return torch.cat([(negatives[some] != -torch.inf).sum(dim=1) for some in slices(negatives)])


def by_row(
    rows: Int64[Tensor, " n"], values: Float[Tensor, " n"], n_rows: int
) -> tuple[Float[Tensor, "rows most"], Int64[Tensor, " n"]]:
    """Values of each row side by side, then infinity.

    Args:
        rows: Row of each value, in order.
        values: Shape ``(n,)``.
        n_rows: How many rows there are.

    Returns:
        ``(table, places)``: the table, and the column of each value in it.

    Example:
        >>> by_row(torch.tensor([0, 0, 2]), torch.tensor([0.5, 0.1, 0.3]), 3)[0]
        tensor([[0.5000, 0.1000],
                [   inf,    inf],
                [0.3000,    inf]])
    """
    counts = rows.bincount(minlength=n_rows)
    places = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    table = values.new_full((n_rows, int(counts.max()) if len(rows) else 1), torch.inf)
    table[rows, places] = values
    return table, places


def _penalty(difference: Tensor, margin: float, soft: bool) -> tuple[Tensor, Tensor]:
    """Penalty of each difference of distances, and its slope. Both are 0 at minus infinity."""
    if soft:
        return softplus(difference), difference.sigmoid()
    penalty = (difference + margin).relu_()
    return penalty, penalty.sign()
