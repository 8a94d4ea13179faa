"""Retrieval figures from scores that are no similarity of two embeddings, such as those of a re-ranking."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from simtrain.errors import DataError
from simtrain.metrics.formulas import average_precision, hit_rate, ndcg, precision, r_precision, recall, reciprocal_rank
from simtrain.metrics.labels import Labels, label_numbers
from simtrain.metrics.relevance import LabelRelevance, PairRelevance, Relevance, Relevant, as_pairs

MaskFunction = Callable[[Tensor, Tensor], Tensor]


def matrix_scores(
    blocks: Iterable[tuple[Tensor, Tensor]],
    n_queries: int,
    n_gallery: int,
    k: Sequence[int] = (1, 5, 10),
    *,
    query_labels: Labels | None = None,
    gallery_labels: Labels | None = None,
    relevant: Relevant | None = None,
    exclude: MaskFunction | None = None,
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
        exclude: Function ``(query numbers, gallery numbers) -> booleans``, True where a pair is left out.

    Raises:
        DataError: Scores are NaN, or relevance is not known.

    Example:
        >>> blocks = [(torch.tensor([0]), torch.tensor([[0.1, 0.9, 0.5]]))]
        >>> matrix_scores(blocks, 1, 3, k=[1], relevant=[[2]])["mrr"]
        tensor([0.5000], dtype=torch.float64)
    """
    relevance = _relevance(query_labels, gallery_labels, relevant, n_queries, n_gallery)
    gallery = torch.arange(n_gallery)
    parts = []
    for queries, scores in blocks:
        if bool(scores.isnan().any()):
            raise DataError(f"the scores of query {int(queries[scores.isnan().any(dim=1)][0])} hold NaN")
        order = scores.argsort(dim=1, descending=True, stable=True)
        hits = relevance.contains(queries, order)
        if exclude is not None:
            left_out = exclude(queries, gallery).gather(1, order)
            # Stable: what is left out goes to the end, the rest keeps its order.
            order = left_out.byte().argsort(dim=1, stable=True)
            hits = (hits & ~left_out).gather(1, order)
        parts.append(_measured(queries, hits, sorted(set(k))))
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    places = joined["query"].argsort()
    return {name: values[places] for name, values in joined.items()}


def _measured(queries: Tensor, hits: Tensor, cuts: Sequence[int]) -> dict[str, Tensor]:
    n_relevant = hits.sum(dim=1)
    keep = n_relevant > 0
    queries, hits, n_relevant = queries[keep], hits[keep], n_relevant[keep]
    scores = {"query": queries, "mrr": reciprocal_rank(hits.byte().argmax(dim=1) + 1)}
    scores["r_precision"] = r_precision(hits, n_relevant)
    scores["map@r"] = average_precision(hits, n_relevant, "r")
    for cut in cuts:
        scores[f"precision@{cut}"] = precision(hits, cut)
        scores[f"recall@{cut}"] = recall(hits, n_relevant, cut)
        scores[f"hit_rate@{cut}"] = hit_rate(hits, cut)
        scores[f"ndcg@{cut}"] = ndcg(hits, n_relevant, cut)
    return scores


def _relevance(
    query_labels: Labels | None,
    gallery_labels: Labels | None,
    relevant: Relevant | None,
    n_queries: int,
    n_gallery: int,
) -> Relevance:
    if relevant is not None:
        return PairRelevance(as_pairs(relevant, n_queries), n_queries, n_gallery)
    if query_labels is None or gallery_labels is None:
        raise DataError("relevance is not known: give query_labels and gallery_labels, or relevant=")
    return LabelRelevance(*label_numbers(query_labels, gallery_labels))
