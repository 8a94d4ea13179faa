"""The formulas of the triplet loss, over a block of similarities; none needs more than anchors x candidates.

A distance is a constant minus a similarity, so that ``d_ap - d_an + margin`` is ``s_an - s_ap + margin``. An anchor
that lacks positives or negatives takes no part.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import softplus

from simtrain.losses.row_terms import Part, Positives, row_maximum


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
    anchors = torch.arange(len(negatives), device=negatives.device)
    farthest = torch.full_like(negatives[:, 0], torch.inf)
    farthest = farthest.scatter_reduce_(0, positives.rows, positives.values, "amin")
    column = torch.zeros_like(anchors)
    is_farthest = positives.values == farthest[positives.rows]
    # Among equals, any will do: which one is written last does not matter.
    column[positives.rows[is_farthest]] = positives.columns[is_farthest]
    nearest, nearest_column = row_maximum(negatives)
    # Not `isfinite`: a NaN is kept, so that the loss becomes NaN too and is noticed.
    complete = (farthest != torch.inf) & (nearest != -torch.inf)
    penalty, steepness = _penalty((nearest - farthest).masked_fill_(~complete, -torch.inf), margin, soft)
    return Part(
        penalty.sum(),
        complete.sum(),
        torch.cat([anchors, anchors]),
        torch.cat([column, nearest_column]),
        torch.cat([-steepness, steepness]),
    )


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
    ordered, order = negatives.sort(dim=1)
    n_columns = negatives.shape[1]
    first = torch.searchsorted(ordered, torch.full_like(ordered[:, :1], -torch.inf), right=True).squeeze(1)
    table, places = by_row(positives.rows, positives.values, len(negatives))
    # The entry before the place where the positive would stand is the nearest one beyond it.
    beyond = torch.searchsorted(ordered, table)[positives.rows, places] - 1
    chosen = torch.maximum(beyond, first[positives.rows]).clamp_(max=n_columns - 1)
    complete = first[positives.rows] < n_columns
    difference = ordered[positives.rows, chosen] - positives.values
    penalty, steepness = _penalty(difference.masked_fill_(~complete, -torch.inf), margin, soft)
    return Part(
        penalty.sum(),
        complete.sum(),
        torch.cat([positives.rows, positives.rows]),
        torch.cat([positives.columns, order[positives.rows, chosen]]),
        torch.cat([-steepness, steepness]),
    )


def all_triplets(
    negatives: Float[Tensor, "anchors candidates"], positives: Positives, *, margin: float = 0.5, soft: bool = False
) -> Part:
    """Every triplet; counted are the active ones, those with a loss above zero (all of them when ``soft``).

    In the sum over active triplets, each similarity is multiplied by the number of them that it is in. An anchor's
    positives are sorted; the place of a negative among them says in how many it is, and how many negatives come
    before a positive says the same of that. No triplet is ever written down.

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
    if soft:
        return _all_soft_triplets(negatives, positives)
    n_rows = len(negatives)
    limits, places = by_row(positives.rows, positives.values - margin, n_rows)
    ordered, order = limits.sort(dim=1)
    within = torch.searchsorted(ordered, negatives)  # how many positives each negative is active with
    n_places = within.new_zeros(n_rows, limits.shape[1] + 1)
    n_places.scatter_add_(1, within, within.new_ones(1, 1).expand_as(within))
    n_after = n_places.flip(1).cumsum(1).flip(1)[:, 1:]
    n_active = torch.zeros_like(n_after).scatter_(1, order, n_after)[positives.rows, places]
    count = n_active.sum()
    slope = within.to(negatives.dtype)
    del within
    value = (negatives.masked_fill_(slope == 0, 0) * slope).sum() - (n_active * positives.values).sum()
    return Part(
        value + margin * count.to(value.dtype),
        count,
        positives.rows,
        positives.columns,
        -n_active.to(negatives.dtype),
        slope,
    )


def _all_soft_triplets(negatives: Tensor, positives: Positives) -> Part:
    """A few pairs of anchor and positive at a time, as many as there are anchors: a slice is as large as the block."""
    total, slope = negatives.new_zeros(()), torch.zeros_like(negatives)
    steepness_of = torch.zeros_like(positives.values)
    for start in range(0, len(positives.rows), len(negatives)):
        part = slice(start, start + len(negatives))
        rows = positives.rows[part]
        difference = negatives[rows] - positives.values[part].unsqueeze(1)
        total += softplus(difference).sum()
        steepness = difference.sigmoid_()
        steepness_of[part] = steepness.sum(dim=1)
        slope.index_add_(0, rows, steepness)
    n_negatives = (negatives != -torch.inf).sum(dim=1)
    return Part(total, n_negatives[positives.rows].sum(), positives.rows, positives.columns, -steepness_of, slope)


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
    return penalty, (penalty > 0).to(penalty.dtype)
