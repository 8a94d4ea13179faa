"""Retrieval figures from scores that are no similarity of two embeddings, such as those of a re-ranking."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from simtrain.errors import DataError
from simtrain.metrics.formulas import Denominator, checked_denominator
from simtrain.metrics.graded import GradedRelevance, Grades
from simtrain.metrics.labels import Labels
from simtrain.metrics.query_measures import checked_cuts, query_measures
from simtrain.metrics.ranking import Ranked
from simtrain.metrics.relevance import Relevance, Relevant
from simtrain.metrics.unmatched import Empty, checked_empty, with_unmatched
from simtrain.metrics.which_relevance import which_relevance

MaskFunction = Callable[[Tensor, Tensor], Tensor]


def matrix_scores(
    blocks: Iterable[tuple[Tensor, Tensor]],
    n_queries: int,
    n_gallery: int,
    k: int | Sequence[int] = (1, 5, 10),
    *,
    query_labels: Labels | None = None,
    gallery_labels: Labels | None = None,
    relevant: Relevant | None = None,
    grades: Grades | None = None,
    exclude: MaskFunction | None = None,
    denominator: Denominator = "min_k_relevant",
    empty: Empty = "skip",
) -> dict[str, Tensor]:
    """Measure retrieval query by query, as :func:`simtrain.metrics.retrieval_scores`, from given scores.

    Args:
        blocks: Query numbers, shape ``(rows,)``, and their scores with the whole gallery, ``(rows, gallery)``; higher
            is nearer, ties stand by gallery index.
        n_queries: Number of queries.
        n_gallery: Size of the gallery.
        k: Depths of the metrics at k.
        query_labels: One label a query, with ``gallery_labels``; or ``relevant`` instead.
        gallery_labels: One label a gallery item.
        relevant: Pairs (query, gallery item), see :func:`simtrain.metrics.retrieval_report`.
        grades: Grade of each of them.
        exclude: Function ``(query numbers, gallery numbers) -> booleans``, True where a pair is left out.
        denominator: Divisor of ``map@k``, see :func:`simtrain.metrics.retrieval_report`.
        empty: What to do about queries without a relevant item, see there.

    Raises:
        ConfigError: Relevance is not known.
        DataError: Scores are NaN, or labels or pairs do not fit.

    Example:
        >>> blocks = [(torch.tensor([0]), torch.tensor([[0.1, 0.9, 0.5]]))]
        >>> matrix_scores(blocks, 1, 3, k=[1], relevant=[[2]])["mrr"]
        tensor([0.5000], dtype=torch.float64)
    """
    relevance = which_relevance(query_labels, gallery_labels, relevant, grades, n_queries, n_gallery)
    checked_denominator(denominator)
    checked_empty(empty)
    cuts, gallery = checked_cuts(k), torch.arange(n_gallery)
    parts = []
    for queries, scores in blocks:
        if bool(scores.isnan().any()):
            raise DataError(f"the scores of query {int(queries[scores.isnan().any(dim=1)][0])} hold NaN")
        order = scores.argsort(dim=1, descending=True, stable=True)
        left_out = torch.zeros_like(order, dtype=torch.bool)
        if exclude is not None:
            left_out = exclude(queries, gallery).gather(1, order)
            # Stable: what is left out goes to the end, the rest keeps its order.
            last = left_out.byte().argsort(dim=1, stable=True)
            order, left_out = order.gather(1, last), left_out.gather(1, last)
        parts.append(query_measures(_ranked(queries, order, left_out, relevance), cuts, denominator))
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    del joined["n_relevant"]
    return with_unmatched(joined, n_queries, empty)


def _ranked(queries: Tensor, order: Tensor, left_out: Tensor, relevance: Relevance) -> Ranked:
    hits = relevance.contains(queries, order) & ~left_out
    n_relevant = hits.sum(dim=1)
    keep = n_relevant > 0
    gains = ideal = None
    if isinstance(relevance, GradedRelevance):
        gains = relevance.gains(queries, order)[keep] * hits[keep]
        ideal = gains.sort(dim=1, descending=True).values
    first_rank = hits[keep].byte().argmax(dim=1) + 1
    return Ranked(queries[keep], hits[keep], n_relevant[keep], first_rank, gains, ideal)
