"""Which candidates of a ranking loss over pairs are no negatives."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64, Integer
from torch import Tensor

_MATCH, _MISMATCH = 1, 2


def blocked_candidates(
    own: Int64[Tensor, " n_pairs"],
    candidates: Int64[Tensor, " n_candidates"],
    labels: Float[Tensor, " n_pairs"],
    subgroups: Integer[Tensor, " rows"],
) -> Bool[Tensor, "n_pairs n_candidates"]:
    """Which candidates must not be counted as negatives of each pair's own item.

    Blocked are: a candidate that some pair with a label above 0 matches with the same row; the row itself;
    a candidate of the same non-zero subgroup, unless a pair with label 0 names it as a mismatch of that very row;
    and the second and later appearances of a row among the candidates, which would count it twice. Each pair's own
    partner is the one candidate that always stays.

    Args:
        own: Row of each pair's item on the side that searches, shape ``(n_pairs,)``.
        candidates: Rows of the candidates; the first ``n_pairs`` are the pairs' items on the other side.
        labels: Shape ``(n_pairs,)``; 0 or less is a known mismatch.
        subgroups: Subgroup of each row of the batch, shape ``(rows,)``; 0 means that none was given.

    Returns:
        Shape ``(n_pairs, n_candidates)``. One byte an entry, beside two such matrices while it is computed.

    Example:
        >>> own, documents = torch.tensor([0, 1, 2]), torch.tensor([3, 4, 3])  # pairs 0 and 2 share document 3
        >>> blocked_candidates(own, documents, torch.ones(3), torch.zeros(5, dtype=torch.long)).tolist()
        [[False, False, True], [False, False, True], [True, False, False]]
    """
    n_pairs, n_candidates = len(own), len(candidates)
    first_own = _first_positions(own, len(subgroups))
    first_candidate = _first_positions(candidates, len(subgroups))
    relations = _relations(own, candidates[:n_pairs], labels, first_own, first_candidate, n_candidates)
    own_subgroups = subgroups[own].unsqueeze(1)
    blocked = own_subgroups == subgroups[candidates]
    blocked &= own_subgroups != 0
    blocked &= relations != _MISMATCH
    blocked |= relations == _MATCH
    columns = torch.arange(n_candidates, device=own.device)
    blocked |= first_candidate[candidates] != columns
    return blocked.scatter_(1, columns[:n_pairs].unsqueeze(1), False)


def _first_positions(rows: Tensor, n_rows: int) -> Tensor:
    """Where each row of the batch first appears in ``rows``; ``len(rows)`` where it does not. Needs no search."""
    absent = torch.full((n_rows,), len(rows), device=rows.device)
    return absent.scatter_reduce(0, rows, torch.arange(len(rows), device=rows.device), "amin")


def _relations(
    own: Tensor, others: Tensor, labels: Tensor, first_own: Tensor, first_candidate: Tensor, n_candidates: int
) -> Tensor:
    """What the pairs say about each (own row, candidate row), at the place of the rows' first appearance."""
    row, column = first_own[own], first_candidate[others]
    # One more column takes the writes of pairs that have nothing to say: no data-dependent shape, no waiting GPU.
    nowhere = torch.full_like(column, n_candidates)
    relations = torch.zeros(len(own), n_candidates + 1, dtype=torch.int8, device=own.device)
    relations[row, torch.where(labels > 0, nowhere, column)] = _MISMATCH
    relations[row, torch.where(labels > 0, column, nowhere)] = _MATCH
    relations[row, first_candidate[own]] = _MATCH
    return relations[row, :n_candidates]
