"""At which ranks the relevant items stand: what every retrieval metric is computed from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from simtrain.metrics.exclusion import Exclusion
from simtrain.metrics.relevance import Relevance
from simtrain.metrics.scan import MEMORY_BUDGET, Scan, block_sizes
from simtrain.metrics.similarities import Similarities

ROWS = 32


@dataclass(frozen=True)
class Ranked:
    """The ranking of one block of queries; each has at least one relevant item.

    Attributes:
        queries: Indices of the queries, shape ``(rows,)``.
        hits: Whether the item at each rank is relevant, best rank first, shape ``(rows, depth)``. ``depth`` reaches
            as far as was asked for; ranks past the end of the gallery are missing or False.
        n_relevant: Relevant items in the gallery, excluded ones not counted, shape ``(rows,)``.
        first_rank: Rank of the first relevant item, counted from 1 over the whole gallery, shape ``(rows,)``; 0
            where it was not asked for.
    """

    queries: Int64[Tensor, " rows"]
    hits: Bool[Tensor, "rows depth"]
    n_relevant: Int64[Tensor, " rows"]
    first_rank: Int64[Tensor, " rows"]


def rank(
    similarities: Similarities,
    relevance: Relevance,
    exclusion: Exclusion,
    *,
    depth: int = 1,
    to_r: bool = True,
    first: bool = True,
    memory_budget: int = MEMORY_BUDGET,
) -> Iterator[Ranked]:
    """Rank the gallery for every query that has a relevant item, block by block.

    Args:
        similarities: Scores of queries and gallery.
        relevance: What is relevant to what.
        exclusion: What to leave out.
        depth: How many ranks to look at.
        to_r: Look at least at as many ranks as a query has relevant items.
        first: Find the rank of the first relevant item, wherever it stands.
        memory_budget: Bytes for scores and candidates.

    Yields:
        Blocks of queries, those with most relevant items first; queries without any are left out.
    """
    counts = relevance.counts()
    # Blocks of like counts: one query with many relevant items does not make others look as deep.
    order = counts.argsort(descending=True, stable=True)[: int((counts > 0).sum())]
    done = 0
    while done < len(order):
        deepest = max(depth, int(counts[order[done]])) if to_r else depth
        deepest = min(deepest, similarities.n_gallery)
        rows, columns = block_sizes(similarities, deepest, memory_budget)
        scan = Scan(similarities, exclusion, order[done : done + rows], columns)
        yield _ranked(scan, relevance, exclusion, deepest, first)
        done += rows


def _ranked(scan: Scan, relevance: Relevance, exclusion: Exclusion, depth: int, first: bool) -> Ranked:
    queries = scan.queries
    n_relevant = relevance.counts()[queries] - _excluded(scan, relevance, exclusion)
    hits = relevance.contains(queries, scan.top(depth)[1])
    first_rank = torch.zeros_like(queries)
    if first:
        found = hits.any(dim=1)
        first_rank[found] = hits[found].byte().argmax(dim=1) + 1
        rest = (~found & (n_relevant > 0)).nonzero()[:, 0]
        if len(rest):
            first_rank[rest] = _first_rank(scan, relevance, rest)
    keep = n_relevant > 0
    return Ranked(queries[keep], hits[keep], n_relevant[keep], first_rank[keep])


def _excluded(scan: Scan, relevance: Relevance, exclusion: Exclusion) -> Int64[Tensor, " rows"]:
    """Number of relevant items that are left out, by query."""
    if exclusion.has_mask:
        return _excluded_by_scores(scan, relevance)
    if exclusion.own is None:
        return torch.zeros_like(scan.queries)
    return relevance.contains(scan.queries, exclusion.own[scan.queries, None])[:, 0].long()


def _excluded_by_scores(scan: Scan, relevance: Relevance) -> Int64[Tensor, " rows"]:
    counts = torch.zeros_like(scan.queries)
    rows = torch.arange(len(scan.queries), device=scan.queries.device)
    for start, scores in scan:
        for some in torch.split(rows, ROWS):
            counts[some] += _relevant_scores(scan, relevance, start, scores, some)[0].isneginf().sum(dim=1)
    return counts


def _first_rank(scan: Scan, relevance: Relevance, rows: Int64[Tensor, " rest"]) -> Int64[Tensor, " rest"]:
    """Rank of the best relevant item: one, and the items that score higher or tie at a lower index."""
    best = torch.full((len(scan.queries), 1), -torch.inf, device=rows.device, dtype=torch.float64)
    place = torch.full_like(scan.queries, scan.n_gallery)[:, None]
    for start, scores in scan:
        for some in torch.split(rows, ROWS):
            _update_best(best, place, some, *_relevant_scores(scan, relevance, start, scores, some))
    ranks = torch.ones_like(scan.queries)
    for start, scores in scan:
        for some in torch.split(rows, ROWS):
            ranks[some] += _before(scores[some], best[some].to(scores.dtype), place[some] - start)
    return ranks[rows]


def _relevant_scores(
    scan: Scan, relevance: Relevance, start: int, scores: Float[Tensor, "all columns"], rows: Int64[Tensor, " some"]
) -> tuple[Float[Tensor, "some most"], Int64[Tensor, "some most"]]:
    """Scores of the relevant items in this block and their gallery indices; NaN where the list is padded."""
    items = relevance.columns(scan.queries[rows])
    inside = (items >= start) & (items < start + scores.shape[1])
    return scores[rows[:, None], (items - start) * inside].where(inside, torch.nan), items


def _update_best(best: Tensor, place: Tensor, rows: Tensor, values: Tensor, items: Tensor) -> None:
    value = values.where(~values.isnan(), -torch.inf).amax(dim=1, keepdim=True)
    first = items.where(values == value, torch.iinfo(items.dtype).max).amin(dim=1, keepdim=True)
    better = value > best[rows]
    best[rows] = value.to(best.dtype).where(better, best[rows])
    place[rows] = first.where(better, place[rows])


def _before(scores: Tensor, best: Tensor, column: Tensor) -> Int64[Tensor, " rows"]:
    before = (scores > best).sum(dim=1)
    tied = (scores == best).sum(dim=1)
    # A tie is rare; where there is one, only lower indices come first.
    rows = ((tied > 1) | ((tied == 1) & ~_holds(column[:, 0], scores))).nonzero()[:, 0]
    if len(rows):
        lower = torch.arange(scores.shape[1], device=scores.device) < column[rows]
        before[rows] += ((scores[rows] == best[rows]) & lower).sum(dim=1)
    return before


def _holds(column: Tensor, scores: Tensor) -> Tensor:
    return (column >= 0) & (column < scores.shape[1])
