"""Retrieval quality of embeddings, over the whole gallery: query by query, and as means."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from simtrain.errors import ConfigError, DataError
from simtrain.metrics.exclusion import Exclude, Exclusion, split_exclude
from simtrain.metrics.formulas import average_precision, hit_rate, ndcg, precision, r_precision, recall, reciprocal_rank
from simtrain.metrics.labels import Labels, label_numbers
from simtrain.metrics.ranking import Ranked, rank
from simtrain.metrics.relevance import LabelRelevance, PairRelevance, Relevance, Relevant, as_pairs
from simtrain.metrics.scan import MEMORY_BUDGET
from simtrain.metrics.similarities import Distance, Similarities
from simtrain.metrics.vectors import Embeddings, as_vectors


def retrieval_report(
    query_embeddings: Embeddings,
    query_labels: Labels | None = None,
    gallery_embeddings: Embeddings | None = None,
    gallery_labels: Labels | None = None,
    k: int | Sequence[int] = (1, 5, 10),
    exclude: Exclude | None = None,
    *,
    relevant: Relevant | None = None,
    distance: Distance = "cosine",
    memory_budget: int = MEMORY_BUDGET,
) -> dict[str, float]:
    """Measure retrieval exactly; each number is the mean over the queries that have a relevant item.

    Args:
        query_embeddings: Tensor or numpy array, shape ``(queries, dim)``, floating point.
        query_labels: One label a query: integers, or any hashables. A gallery item is relevant to a query with an
            equal label. Left out where ``relevant`` is given.
        gallery_embeddings: Shape ``(gallery, dim)``. Without it each query is searched among all other queries.
        gallery_labels: One label a gallery item; needed with ``gallery_embeddings`` and ``query_labels``.
        k: Cut-offs of ``precision@k``, ``recall@k``, ``hit_rate@k`` and ``ndcg@k``.
        exclude: Pairs to leave out, which are then neither found nor counted as relevant: booleans of shape
            ``(queries, gallery)``; a function ``(query indices, gallery indices) -> booleans`` called block by
            block; or each query's own gallery index, shape ``(queries,)``.
        relevant: Instead of labels: integer rows ``(query index, gallery index)`` of shape ``(pairs, 2)``, or a
            sequence with the relevant gallery indices of each query.
        distance: ``"cosine"``, ``"dot"`` or ``"euclidean"``.
        memory_budget: Bytes for scores and candidates beside the embeddings, default 64 MB; see :func:`top_k`.

    Returns:
        ``precision@k`` (found / k, also where the gallery is smaller), ``recall@k`` (found / relevant), ``hit_rate@k``
        (any found), ``ndcg@k`` (gains 0 and 1) for every k; ``mrr`` (over the whole gallery), ``r_precision`` and
        ``map@r`` (both divided by the query's number of relevant items R); ``n_queries``, of which
        ``n_queries_without_match`` have no relevant item and are skipped. All 0.0 where every query is skipped.

    Raises:
        ConfigError: Arguments do not go together, or ``k``, ``distance`` or ``memory_budget`` is not accepted.
        DataError: Embeddings, labels, ``exclude`` or ``relevant`` do not fit each other, or embeddings hold NaN.

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> report = retrieval_report(points, ["cat", "cat", "dog", "fox"], k=1)
        >>> report["precision@1"], report["n_queries"], report["n_queries_without_match"]
        (1.0, 4.0, 2.0)
    """
    scores = retrieval_scores(
        query_embeddings,
        query_labels,
        gallery_embeddings,
        gallery_labels,
        k,
        exclude,
        relevant=relevant,
        distance=distance,
        memory_budget=memory_budget,
    )
    queries = scores.pop("query")
    report = {name: float(values.mean()) if len(values) else 0.0 for name, values in scores.items()}
    n_queries = len(query_embeddings)
    return {**report, "n_queries": float(n_queries), "n_queries_without_match": float(n_queries - len(queries))}


def retrieval_scores(
    query_embeddings: Embeddings,
    query_labels: Labels | None = None,
    gallery_embeddings: Embeddings | None = None,
    gallery_labels: Labels | None = None,
    k: int | Sequence[int] = (1, 5, 10),
    exclude: Exclude | None = None,
    *,
    relevant: Relevant | None = None,
    distance: Distance = "cosine",
    memory_budget: int = MEMORY_BUDGET,
) -> dict[str, Tensor]:
    """Measure retrieval exactly, query by query: for bootstrap intervals, paired tests and error analysis.

    Takes the arguments of :func:`retrieval_report`, and raises what that raises.

    Returns:
        For each metric a float64 tensor of shape ``(evaluated,)``, free of NaN, and under ``"query"`` the indices of
        these queries, ascending, int64. Queries without a relevant item are not among them.

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> scores = retrieval_scores(points, relevant=[[1], [2, 3], [], [2]], k=[1])
        >>> scores["query"].tolist(), scores["mrr"].tolist()
        ([0, 1, 3], [1.0, 0.5, 1.0])
    """
    cuts = _cuts(k)
    queries = as_vectors(query_embeddings, "queries")
    gallery = queries if gallery_embeddings is None else as_vectors(gallery_embeddings, "gallery")
    similarities = Similarities(queries, gallery, distance)
    labels = query_labels if gallery_embeddings is None and gallery_labels is None else gallery_labels
    relevance = _relevance(query_labels, labels, relevant, similarities)
    exclusion = _exclusion(exclude, similarities, alone=gallery_embeddings is None)
    blocks = rank(similarities, relevance, exclusion, depth=max(cuts), memory_budget=memory_budget)
    return _ordered([_measured(block, cuts) for block in blocks], cuts)


def _cuts(k: int | Sequence[int]) -> list[int]:
    cuts = [k] if isinstance(k, int) else list(k)
    if not cuts or any(isinstance(cut, bool) or not isinstance(cut, int) or cut < 1 for cut in cuts):
        raise ConfigError(f"k is a positive integer or a sequence of them, got {k!r}")
    return sorted(set(cuts))


def _relevance(
    query_labels: Labels | None, gallery_labels: Labels | None, relevant: Relevant | None, similarities: Similarities
) -> Relevance:
    n_queries, n_gallery, device = similarities.n_queries, similarities.n_gallery, similarities.device
    if relevant is not None:
        if query_labels is not None or gallery_labels is not None:
            raise ConfigError("give labels or relevant=, not both")
        return PairRelevance(as_pairs(relevant, n_queries).to(device), n_queries, n_gallery)
    if query_labels is None or gallery_labels is None:
        raise ConfigError("relevance is not known: give query_labels (and gallery_labels with a gallery) or relevant=")
    first, second = label_numbers(query_labels, gallery_labels)
    for labels, size, name in ((first, n_queries, "queries"), (second, n_gallery, "gallery items")):
        if len(labels) != size:
            raise DataError(f"got {len(labels)} labels for {size} {name}; give one label each")
    return LabelRelevance(first.to(device), second.to(device))


def _exclusion(exclude: Exclude | None, similarities: Similarities, *, alone: bool) -> Exclusion:
    own, mask = split_exclude(exclude)
    n_queries, n_gallery, device = similarities.n_queries, similarities.n_gallery, similarities.device
    if alone and own is not None:
        raise ConfigError("without a gallery each query's own item is left out already: exclude takes further pairs")
    if alone:
        own = torch.arange(n_queries)
    return Exclusion(own, mask, n_queries=n_queries, n_gallery=n_gallery, device=device)


def _measured(block: Ranked, cuts: Sequence[int]) -> dict[str, Tensor]:
    hits, n_relevant = block.hits, block.n_relevant
    scores = {"query": block.queries, "mrr": reciprocal_rank(block.first_rank)}
    scores["r_precision"] = r_precision(hits, n_relevant)
    scores["map@r"] = average_precision(hits, n_relevant, "r")
    for k in cuts:
        scores[f"precision@{k}"] = precision(hits, k)
        scores[f"recall@{k}"] = recall(hits, n_relevant, k)
        scores[f"hit_rate@{k}"] = hit_rate(hits, k)
        scores[f"ndcg@{k}"] = ndcg(hits, n_relevant, k)
    return scores


def _ordered(blocks: list[dict[str, Tensor]], cuts: Sequence[int]) -> dict[str, Tensor]:
    if not blocks:
        empty = torch.empty(0, dtype=torch.int64)
        nothing = Ranked(empty, torch.empty(0, 0, dtype=torch.bool), empty, empty)
        blocks = [_measured(nothing, cuts)]
    joined = {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}
    order = joined["query"].argsort()
    return {name: values[order] for name, values in joined.items()}
