"""Retrieval quality of embeddings, over the whole gallery: query by query, and as means."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from simtrain.errors import ConfigError
from simtrain.metrics.averages import Average, checked_average
from simtrain.metrics.exclusion import Exclude, Exclusion, split_exclude
from simtrain.metrics.formulas import Denominator, checked_denominator
from simtrain.metrics.graded import Grades
from simtrain.metrics.labels import Labels
from simtrain.metrics.mutual_ranking import rank_mutually, ranks_mutually
from simtrain.metrics.query_measures import checked_cuts, query_measures
from simtrain.metrics.ranking import Ranked, rank
from simtrain.metrics.relevance import Relevant
from simtrain.metrics.scan import MEMORY_BUDGET
from simtrain.metrics.similarities import Distance, Similarities
from simtrain.metrics.unmatched import Empty, check_matched, checked_empty, with_unmatched
from simtrain.metrics.vectors import Embeddings, as_vectors
from simtrain.metrics.which_relevance import which_relevance


def retrieval_report(
    query_embeddings: Embeddings,
    query_labels: Labels | None = None,
    gallery_embeddings: Embeddings | None = None,
    gallery_labels: Labels | None = None,
    k: int | Sequence[int] = (1, 5, 10),
    exclude: Exclude | None = None,
    *,
    relevant: Relevant | None = None,
    grades: Grades | None = None,
    distance: Distance = "cosine",
    denominator: Denominator = "min_k_relevant",
    empty: Empty = "skip",
    average: Average = "macro",
    memory_budget: int = MEMORY_BUDGET,
    show_progress: bool | None = None,
) -> dict[str, float]:
    """Measure retrieval exactly; each number is the mean over the queries that have a relevant item.

    Args:
        query_embeddings: Tensor or numpy array, shape ``(queries, dim)``, floating point.
        query_labels: One label a query: integers, or any hashables. A gallery item is relevant to a query with an
            equal label. Left out where ``relevant`` is given.
        gallery_embeddings: Shape ``(gallery, dim)``. Without it each query is searched among all other queries.
        gallery_labels: One label a gallery item; needed with ``gallery_embeddings`` and ``query_labels``.
        k: Cut-offs of ``precision@k``, ``recall@k``, ``hit_rate@k``, ``map@k`` and ``ndcg@k``.
        exclude: Pairs to leave out, which are then neither found nor counted as relevant: booleans of shape
            ``(queries, gallery)``; a function ``(query indices, gallery indices) -> booleans`` called block by
            block; or each query's own gallery index, shape ``(queries,)``.
        relevant: Instead of labels: integer rows ``(query index, gallery index)`` of shape ``(pairs, 2)``, or a
            sequence with the relevant gallery indices of each query, or with mappings of gallery index to grade.
        grades: Grade of each row of ``relevant``: above 0 it is relevant, and ``ndcg@k`` takes it as the gain.
        distance: ``"cosine"``, ``"dot"`` or ``"euclidean"``.
        denominator: What ``map@k`` is divided by, for k and a query's number of relevant items R: min(k, R), R
            (``"relevant"``) or the items found (``"hits"``). Other tools divide differently, see the table at
            :func:`~simtrain.metrics.formulas.average_precision`.
        empty: Queries without a relevant item are left out (``"skip"``), count as 0 in every metric (``"zero"``), or
            are an error (``"error"``).
        average: ``"macro"``: every query counts alike. ``"micro"``: every relevant item does, so a query weighs as
            much as it has relevant items.
        memory_budget: Bytes for scores and candidates beside the embeddings, default 160 MB; see :func:`top_k`.
        show_progress: See :class:`~simtrain.models.progress.Progress`; default: when it takes over a second.

    Returns:
        ``precision@k`` (found / k, also where the gallery is smaller), ``recall@k`` (found / relevant), ``hit_rate@k``
        (any found), ``map@k`` and ``ndcg@k`` (gains 0 and 1, or grades) for every k; ``mrr`` (over the whole gallery),
        ``r_precision`` and ``map@r`` (both divided by the query's number of relevant items R); ``n_queries``, of which
        ``n_queries_without_match`` have no relevant item. All 0.0 where every query is skipped.

    Raises:
        ConfigError: Arguments do not go together, or an option is not accepted.
        DataError: Embeddings, labels, ``exclude``, ``relevant`` or ``grades`` do not fit each other, embeddings hold
            NaN, or a query has nothing relevant and ``empty`` is ``"error"``.

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> report = retrieval_report(points, ["cat", "cat", "dog", "fox"], k=1)
        >>> report["precision@1"], report["n_queries"], report["n_queries_without_match"]
        (1.0, 4.0, 2.0)
    """
    checked_average(average)
    labels = query_labels, gallery_labels
    options = (distance, denominator, empty, memory_budget, show_progress)
    scores = _scores(query_embeddings, gallery_embeddings, labels, k, exclude, relevant, grades, *options)
    weights = scores.pop("n_relevant")
    queries, n_without = scores.pop("query"), int((weights == 0).sum())
    shares = weights.double() / weights.sum().clamp(min=1)
    report = {
        name: float(values @ shares) if average == "micro" or not len(values) else float(values.mean())
        for name, values in scores.items()
    }
    n_queries = len(query_embeddings)
    report["n_queries"] = float(n_queries)
    report["n_queries_without_match"] = float(n_without + n_queries - len(queries))
    return report


def retrieval_scores(
    query_embeddings: Embeddings,
    query_labels: Labels | None = None,
    gallery_embeddings: Embeddings | None = None,
    gallery_labels: Labels | None = None,
    k: int | Sequence[int] = (1, 5, 10),
    exclude: Exclude | None = None,
    *,
    relevant: Relevant | None = None,
    grades: Grades | None = None,
    distance: Distance = "cosine",
    denominator: Denominator = "min_k_relevant",
    empty: Empty = "skip",
    memory_budget: int = MEMORY_BUDGET,
    show_progress: bool | None = None,
) -> dict[str, Tensor]:
    """Measure retrieval exactly, query by query: for bootstrap intervals, paired tests and error analysis.

    Takes the arguments of :func:`retrieval_report` but ``average``, and raises what that raises.
    :func:`~simtrain.metrics.grouped_report` gives means by class or by any other grouping of the queries.

    Returns:
        For each metric a float64 tensor of shape ``(evaluated,)``, free of NaN, and under ``"query"`` the indices of
        these queries, ascending, int64. Queries without a relevant item are not among them, unless ``empty="zero"``.

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> scores = retrieval_scores(points, relevant=[[1], [2, 3], [], [2]], k=[1])
        >>> scores["query"].tolist(), scores["mrr"].tolist()
        ([0, 1, 3], [1.0, 0.5, 1.0])
    """
    labels = query_labels, gallery_labels
    options = (distance, denominator, empty, memory_budget, show_progress)
    scores = _scores(query_embeddings, gallery_embeddings, labels, k, exclude, relevant, grades, *options)
    del scores["n_relevant"]
    return scores


def _scores(
    query_embeddings: Embeddings,
    gallery_embeddings: Embeddings | None,
    labels: tuple[Labels | None, Labels | None],
    k: int | Sequence[int],
    exclude: Exclude | None,
    relevant: Relevant | None,
    grades: Grades | None,
    distance: Distance,
    denominator: Denominator,
    empty: Empty,
    memory_budget: int,
    show_progress: bool | None,
) -> dict[str, Tensor]:
    cuts = checked_cuts(k)
    checked_denominator(denominator)
    checked_empty(empty)
    alone = gallery_embeddings is None
    if alone and labels[1] is not None:
        raise ConfigError("gallery_labels= belong to gallery_embeddings=: give both, or query_labels alone")
    queries = as_vectors(query_embeddings, "queries")
    gallery = queries if gallery_embeddings is None else as_vectors(gallery_embeddings, "gallery")
    similarities = Similarities(queries, gallery, distance)
    gallery_labels = labels[0] if alone else labels[1]
    sizes = len(queries), len(gallery)
    relevance = which_relevance(labels[0], gallery_labels, relevant, grades, *sizes, similarities.device)
    exclusion = _exclusion(exclude, similarities, alone=alone)
    check_matched(relevance, exclusion, empty)
    depth = max(cuts)
    search = rank_mutually if ranks_mutually(similarities, relevance, exclusion, depth) else rank
    blocks = search(
        similarities, relevance, exclusion, depth=depth, memory_budget=memory_budget, show_progress=show_progress
    )
    scores = _joined([query_measures(block, cuts, denominator) for block in blocks], cuts)
    return with_unmatched(scores, len(queries), empty)


def _exclusion(exclude: Exclude | None, similarities: Similarities, *, alone: bool) -> Exclusion:
    own, mask = split_exclude(exclude)
    n_queries, n_gallery, device = similarities.n_queries, similarities.n_gallery, similarities.device
    if alone and own is not None:
        raise ConfigError("without a gallery each query's own item is left out already: exclude takes further pairs")
    if alone:
        own = torch.arange(n_queries)
    return Exclusion(own, mask, n_queries=n_queries, n_gallery=n_gallery, device=device)


def _joined(blocks: list[dict[str, Tensor]], cuts: Sequence[int]) -> dict[str, Tensor]:
    if not blocks:
        nothing = torch.empty(0, dtype=torch.int64)
        blocks = [query_measures(Ranked(nothing, torch.empty(0, 0, dtype=torch.bool), nothing, nothing), cuts)]
    return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}
