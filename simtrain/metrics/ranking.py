"""At which ranks the relevant items stand: what every retrieval metric is computed from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from simtrain.metrics.exclusion import Exclusion
from simtrain.metrics.graded import GradedRelevance
from simtrain.metrics.relevance import Relevance
from simtrain.metrics.relevant_scores import RelevantScores
from simtrain.metrics.scan import MEMORY_BUDGET, Scan, Workspace, block_sizes
from simtrain.metrics.similarities import Similarities
from simtrain.models.progress import Progress


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
        gains: Of graded relevance: the grade of the item at each rank, 0 where it is not relevant, shape
            ``(rows, depth)``.
        ideal: Of graded relevance: the grades of the query's relevant items, excluded ones left out, highest first
            and filled up with 0, shape ``(rows, most)``.
    """

    queries: Int64[Tensor, " rows"]
    hits: Bool[Tensor, "rows depth"]
    n_relevant: Int64[Tensor, " rows"]
    first_rank: Int64[Tensor, " rows"]
    gains: Float64[Tensor, "rows depth"] | None = None
    ideal: Float64[Tensor, "rows most"] | None = None


def rank(
    similarities: Similarities,
    relevance: Relevance,
    exclusion: Exclusion,
    *,
    depth: int = 1,
    to_r: bool = True,
    first: bool = True,
    queries: Int64[Tensor, " some"] | None = None,
    memory_budget: int = MEMORY_BUDGET,
    show_progress: bool | None = False,
) -> Iterator[Ranked]:
    """Rank the gallery for every query that has a relevant item, block by block.

    Args:
        similarities: Scores of queries and gallery.
        relevance: What is relevant to what.
        exclusion: What to leave out.
        depth: How many ranks to look at.
        to_r: Look at least at as many ranks as a query has relevant items.
        first: Find the rank of the first relevant item, wherever it stands.
        queries: Rank for these only, given by index; default: all.
        memory_budget: Bytes for scores and candidates.
        show_progress: See :class:`~simtrain.models.progress.Progress`.

    Yields:
        Blocks of queries, those with most relevant items first; queries without any are left out.
    """
    counts = relevance.counts()
    order = torch.arange(len(counts), device=counts.device) if queries is None else queries
    # Blocks of like counts: one query with many relevant items does not make others look as deep.
    order = order[counts[order].argsort(descending=True, stable=True)]
    order = order[counts[order] > 0]
    done, workspace = 0, Workspace()
    with Progress("ranking", len(order), show_progress) as progress:
        while done < len(order):
            deepest = max(depth, int(counts[order[done]])) if to_r else depth
            deepest = min(deepest, similarities.n_gallery)
            rows, columns = block_sizes(similarities, deepest, memory_budget)
            scan = Scan(similarities, exclusion, order[done : done + rows], columns, workspace)
            yield _ranked(scan, relevance, exclusion, deepest, first)
            done += rows
            progress.advance(rows)


def _ranked(scan: Scan, relevance: Relevance, exclusion: Exclusion, depth: int, first: bool) -> Ranked:
    queries, graded = scan.queries, isinstance(relevance, GradedRelevance)
    seen = RelevantScores(scan, relevance, lists=graded)
    # Scores that are not kept are looked at on the way; else only those are that turn out to be needed.
    watched = graded or exclusion.has_mask or (first and not scan.in_one_block)
    _, items = scan.top(depth, seen.watch if watched else None)
    n_excluded = seen.n_excluded if watched else _own_excluded(queries, relevance, exclusion)
    n_relevant = relevance.counts()[queries] - n_excluded
    hits = relevance.contains(queries, items)
    first_rank = _first_ranks(scan, seen, hits, n_relevant, watched) if first else torch.zeros_like(queries)
    keep = n_relevant > 0
    gains, ideal = _grades(relevance, queries, items, seen) if isinstance(relevance, GradedRelevance) else (None, None)
    return Ranked(
        queries[keep],
        hits[keep],
        n_relevant[keep],
        first_rank[keep],
        None if gains is None else gains[keep],
        None if ideal is None else ideal[keep],
    )


def _own_excluded(queries: Tensor, relevance: Relevance, exclusion: Exclusion) -> Int64[Tensor, " rows"]:
    """Number of relevant items that are left out, by query, where only its own item may be."""
    if exclusion.own is None:
        return torch.zeros_like(queries)
    return relevance.contains(queries, exclusion.own[queries, None])[:, 0].long()


def _first_ranks(
    scan: Scan, seen: RelevantScores, hits: Tensor, n_relevant: Tensor, watched: bool
) -> Int64[Tensor, " rows"]:
    ranks = torch.zeros_like(scan.queries)
    found = hits.any(dim=1)
    ranks[found] = hits[found].byte().argmax(dim=1) + 1
    rest = (~found & (n_relevant > 0)).nonzero()[:, 0]
    if not len(rest):
        return ranks
    for start, scores in () if watched else scan:
        seen.look(start, scores, rest)
    ranks[rest] = seen.ranks(rest)
    return ranks


def _grades(
    relevance: GradedRelevance, queries: Tensor, items: Tensor, seen: RelevantScores
) -> tuple[Float64[Tensor, "rows depth"], Float64[Tensor, "rows most"]]:
    assert seen.excluded is not None
    listed = relevance.grades(queries).masked_fill(seen.excluded, 0.0)
    return relevance.gains(queries, items), listed.sort(dim=1, descending=True).values
