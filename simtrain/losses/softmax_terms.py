"""Losses that weigh an anchor's candidates by a softmax, over a block of similarities."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import softplus, threshold

from simtrain.losses.row_terms import Part, Positives, entries_above, fold_maxima, number_of, slices
from simtrain.losses.weighted_sums import in_row_order


def supcon_rows(negatives: Float[Tensor, "anchors candidates"], positives: Positives) -> Part:
    """Cross entropy of each positive among all candidates, averaged per anchor; counted are anchors with positives.

    Args:
        negatives: Similarities divided by the temperature; ``-inf`` where a candidate is no negative. It is written to.
        positives: The positives, in the order of the anchors.

    Example:
        >>> negatives = torch.tensor([[-torch.inf, -torch.inf, 1.0]])
        >>> supcon_rows(negatives, Positives(torch.tensor([0]), torch.tensor([1]), torch.tensor([1.0]))).total  # log 2
        tensor(0.6931)
    """
    rows, columns, values = positives
    negatives[rows, columns] = values
    n_positives = rows.bincount(minlength=len(negatives))
    has_positive = n_positives > 0
    share = n_positives.clamp(min=1).to(values.dtype).reciprocal().index_select(0, rows)
    log_total, weights = softmax_of(negatives)
    _zero_rows(weights, ~has_positive)
    mean_positive = torch.zeros_like(log_total).index_add_(0, rows, values * share)
    losses = (log_total - mean_positive).masked_fill(~has_positive, 0)
    return Part(losses.sum(), has_positive.sum(), rows, columns, -share, weights, losses.count_nonzero())


def ntxent_rows(negatives: Float[Tensor, "anchors candidates"], positives: Positives) -> Part:
    """Cross entropy of each positive among itself and the anchor's negatives; counted are the positives.

    Args:
        negatives: Similarities divided by the temperature; ``-inf`` where a candidate is no negative. It is written to.
        positives: The positives, in the order of the anchors.

    Example:
        >>> negatives = torch.tensor([[-torch.inf, 1.0, 1.0]])
        >>> ntxent_rows(negatives, Positives(torch.tensor([0]), torch.tensor([0]), torch.tensor([1.0]))).total  # log 3
        tensor(1.0986)
    """
    rows, columns, values = positives
    log_total, weights = softmax_of(negatives)
    difference = log_total.index_select(0, rows) - values
    steepness = difference.sigmoid()
    weights.mul_(torch.zeros_like(log_total).index_add_(0, rows, steepness).unsqueeze(1))
    count = number_of(rows)
    losses = softplus(difference)
    return Part(losses.sum(), count, rows, columns, -steepness, weights, losses.count_nonzero())


def multi_similarity_rows(
    negatives: Float[Tensor, "anchors candidates"],
    positives: Positives,
    *,
    alpha: float = 2.0,
    beta: float = 50.0,
    lambda_: float = 1.0,
    epsilon: float | None = 0.1,
) -> Part:
    """Mined pairs, weighed by the paper's equation 10; counted are all anchors.

    Args:
        negatives: Similarities times ``beta``; ``-inf`` where a candidate is no negative. It is written to.
        positives: The positives, in the order of the anchors, times ``beta``.
        alpha: Scale of the positives.
        beta: Scale of the negatives.
        lambda_: Similarity that positives are to be above and negatives below.
        epsilon: Margin of the mining; None mines nothing.

    Example:
        >>> negatives = torch.tensor([[-torch.inf, 1.0]])
        >>> one = Positives(torch.tensor([0]), torch.tensor([0]), torch.tensor([1.0]))
        >>> multi_similarity_rows(negatives, one, alpha=1.0, beta=1.0).total  # 2 log 2
        tensor(1.3863)
    """
    scales = alpha, beta, lambda_
    if epsilon is None:
        return _weighed_pairs(positives, *_dense_pushes(negatives, None, beta * lambda_), scales)
    rows, _, values = positives
    hardest = torch.full_like(negatives[:, 0], torch.inf).scatter_reduce_(0, rows, values, "amin")
    limits = hardest - beta * epsilon
    maxima = fold_maxima(negatives)
    nearest = maxima.amax(dim=1)
    # Not `<`: a NaN is kept, so that the loss becomes NaN too and is noticed.
    positives = positives.where((values >= nearest.index_select(0, rows) + beta * epsilon).logical_not_())
    entries = entries_above(negatives, limits, maxima)
    if entries is None:
        return _weighed_pairs(positives, *_dense_pushes(negatives, limits, beta * lambda_), scales)
    log_push, shares = listed_softmax(entries[0], negatives[entries] - beta * lambda_, len(negatives))
    return _weighed_pairs(positives, log_push, (*entries, shares), scales)


def _dense_pushes(negatives: Tensor, limits: Tensor | None, shift: float) -> tuple[Tensor, Tensor]:
    """Log of the sum of each row's exponentials above its limit, less a shift, and their shares in it."""
    if limits is None:
        log_sums, shares = softmax_of(negatives)
        return log_sums - shift, shares
    found = []
    for some in slices(negatives):
        # Their shares do not change with what is taken off all.
        block = negatives[some].sub_(limits[some].unsqueeze(1))
        found.append(_to_shares(threshold(block, 0, -torch.inf, inplace=True)))
    return _log_sums(found, negatives) + limits.where(limits < torch.inf, 0) - shift, negatives


def _weighed_pairs(
    positives: Positives,
    log_push: Tensor,
    shares: Tensor | tuple[Tensor, Tensor, Tensor],
    scales: tuple[float, float, float],
) -> Part:
    """Equation 10, from the pairs that are pulled and the shares, dense or listed, of those that are pushed."""
    alpha, beta, lambda_ = scales
    rows, columns, values = positives
    log_pull, pulls = listed_softmax(rows, -alpha * (values / beta - lambda_), len(log_push))
    losses = softplus(log_pull) / alpha + softplus(log_push) / beta
    slopes, steepness = pulls * log_pull.sigmoid().index_select(0, rows) / -beta, log_push.sigmoid().div_(beta)
    if isinstance(shares, Tensor):
        dense = shares.mul_(steepness.unsqueeze(1))
        return Part(losses.sum(), number_of(losses), rows, columns, slopes, dense, losses.count_nonzero())
    pushed, places, weights = shares
    slopes = torch.cat([slopes, weights * steepness.index_select(0, pushed)])
    listed = in_row_order(torch.cat([rows, pushed]), torch.cat([columns, places]), slopes)
    return Part(losses.sum(), number_of(losses), *listed, active=losses.count_nonzero())


def softmax_of(
    block: Float[Tensor, "rows columns"],
) -> tuple[Float[Tensor, " rows"], Float[Tensor, "rows columns"]]:
    """Log of the sum of each row's exponentials, and their shares in it. The block is used up.

    Returns:
        ``(log sums, shares)``: ``-inf`` and zeros for a row of ``-inf``.

    Example:
        >>> softmax_of(torch.zeros(1, 2))
        (tensor([0.6931]), tensor([[0.5000, 0.5000]]))
    """
    return _log_sums([_to_shares(block[some]) for some in slices(block)], block), block


def _to_shares(block: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax of each row, in place; its largest entry before and after."""
    largest = block.amax(dim=1)
    # In place, where each row is read and written by one thread: fresh pages would cost as much as the exponentials.
    if block.device.type == "cpu":
        torch.softmax(block, 1, out=block)
    else:
        block.copy_(torch.softmax(block, dim=1))
    return largest, block.amax(dim=1)


def _log_sums(found: list[tuple[Tensor, Tensor]], shares: Tensor) -> Tensor:
    """Log of the sum of each row's exponentials; the shares of a row of ``-inf``, which are NaN, become zero."""
    largest, largest_shares = (torch.cat(of_slices) for of_slices in zip(*found, strict=True))
    is_empty = largest == -torch.inf
    # The largest entry's share tells the sum, without another pass of exponentials.
    log_sums = largest - largest_shares.log_()
    _zero_rows(shares, is_empty)
    return log_sums.masked_fill_(is_empty, -torch.inf)


def _zero_rows(block: Tensor, are_zero: Tensor) -> None:
    # Through a list: a mask of rows would be compared with every entry.
    block.index_fill_(0, are_zero.nonzero().squeeze(1), 0)


def listed_softmax(
    rows: Int64[Tensor, " n"], values: Float[Tensor, " n"], n_rows: int
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " n"]]:
    """As :func:`softmax_of`, of a list of entries.

    Example:
        >>> listed_softmax(torch.tensor([0, 0]), torch.zeros(2), 2)
        (tensor([0.6931,   -inf]), tensor([0.5000, 0.5000]))
    """
    largest = values.new_full((n_rows,), -torch.inf).scatter_reduce_(0, rows, values, "amax")
    powers = (values - largest.index_select(0, rows)).exp_()
    sums = values.new_zeros(n_rows).index_add_(0, rows, powers)
    return sums.log() + largest.masked_fill(sums == 0, 0), powers.div_(sums.index_select(0, rows))
