"""Where a model is wrong: worst queries, confused classes, suspicious labels, and items on both sides of a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from simtrain.errors import ConfigError, DataError, nearest
from simtrain.evaluation.error_findings import ConfusedClasses, NearDuplicate, SuspectLabel, WorstQuery
from simtrain.metrics import retrieval_scores, top_k
from simtrain.metrics.exclusion import Exclude
from simtrain.metrics.labels import Labels, label_numbers
from simtrain.metrics.relevance import Relevant
from simtrain.metrics.vectors import Embeddings, as_vectors

#: Neighbours in search of duplicates of an item.
MOST_DUPLICATES = 10


def worst_queries(
    query_embeddings: Embeddings,
    query_labels: Labels | None = None,
    gallery_embeddings: Embeddings | None = None,
    gallery_labels: Labels | None = None,
    n: int = 10,
    *,
    metric: str = "map@r",
    found: int = 5,
    relevant: Relevant | None = None,
    exclude: Exclude | None = None,
) -> list[WorstQuery]:
    """The queries with the lowest values of a metric, those first whose first relevant item comes last.

    Args:
        query_embeddings: Shape ``(queries, dim)``; other arguments as :func:`simtrain.metrics.retrieval_scores`.
        query_labels: One label a query.
        gallery_embeddings: Shape ``(gallery, dim)``; None searches each query among the others.
        gallery_labels: One label a gallery item.
        n: How many queries.
        metric: ``"map@r"``, ``"mrr"``, ``"r_precision"``, or one at 1, 5 or 10, such as ``"recall@5"``.
        found: How many of the items that a query finds first are named.
        relevant: Instead of labels.
        exclude: Pairs to leave out.

    Raises:
        ConfigError: The metric is unknown, or ``n`` or ``found`` is not positive.
        DataError: As :func:`simtrain.metrics.retrieval_scores`.

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.8, 0.2]])
        >>> [worst.query for worst in worst_queries(points, [0, 0, 1, 1], n=1)]
        [3]
    """
    _check_number(n)
    scores = retrieval_scores(
        query_embeddings, query_labels, gallery_embeddings, gallery_labels, exclude=exclude, relevant=relevant
    )
    numbers = scores.pop("query")
    if metric not in scores:
        raise ConfigError(f"unknown metric {metric!r}; {nearest(metric, scores)}")
    ranks = (1.0 / scores["mrr"]).round().long()
    # Sorted twice, stably: by the metric, and of equal ones by the rank.
    order = ranks.argsort(descending=True, stable=True)
    order = order[scores[metric][order].argsort(stable=True)][:n]
    queries = as_vectors(query_embeddings, "queries")[numbers[order]]
    gallery, left_out = _searched(query_embeddings, gallery_embeddings, exclude, numbers[order])
    cosines, items = top_k(queries, gallery, k=found, exclude=left_out)
    return [
        WorstQuery(
            int(numbers[place]),
            float(scores[metric][place]),
            int(ranks[place]),
            [item for item in items[row].tolist() if item >= 0],
            [score for score in cosines[row].tolist() if score > -torch.inf],
        )
        for row, place in enumerate(order.tolist())
    ]


def confused_classes(
    query_embeddings: Embeddings,
    query_labels: Labels,
    gallery_embeddings: Embeddings | None = None,
    gallery_labels: Labels | None = None,
    n: int = 10,
    *,
    k: int = 1,
    exclude: Exclude | None = None,
) -> list[ConfusedClasses]:
    """Pairs of classes of which the first finds the second most often among its ``k`` nearest.

    Args:
        query_embeddings: Shape ``(queries, dim)``.
        query_labels: One label a query.
        gallery_embeddings: Shape ``(gallery, dim)``; None searches each query among the others.
        gallery_labels: One label a gallery item.
        n: How many pairs.
        k: Neighbours to look at.
        exclude: Pairs to leave out.

    Raises:
        ConfigError: ``n`` or ``k`` is not positive, or a gallery comes without labels.
        DataError: There is not one label an item.

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.8, 0.2]])
        >>> confused_classes(points, ["cat", "cat", "dog", "dog"])[0].to_dict()
        {'label': 'dog', 'other': 'cat', 'count': 1, 'share': 0.5}
    """
    _check_number(n)
    names = query_labels if gallery_embeddings is None else gallery_labels
    if names is None:
        raise ConfigError("the classes of the gallery are not known: give gallery_labels with gallery_embeddings")
    own, other = (numbers.cpu() for numbers in label_numbers(query_labels, names))
    _check_labels(own, query_embeddings, "queries")
    _check_labels(other, query_embeddings if gallery_embeddings is None else gallery_embeddings, "gallery items")
    queries = as_vectors(query_embeddings, "queries")
    gallery, left_out = _searched(query_embeddings, gallery_embeddings, exclude, torch.arange(len(queries)))
    items = top_k(queries, gallery, k=k, exclude=left_out)[1].cpu()
    rows = torch.arange(len(items))[:, None].expand_as(items)[items >= 0]
    hits = items[items >= 0]
    label_of = _names(own, query_labels, other, names)
    totals = Counter(own[rows].tolist())
    pairs = Counter(zip(own[rows].tolist(), other[hits].tolist(), strict=True))
    wrong = [(count, left, right) for (left, right), count in pairs.items() if left != right]
    wrong.sort(key=lambda entry: (-entry[0], entry[1], entry[2]))
    return [
        ConfusedClasses(label_of[left], label_of[right], count, count / totals[left])
        for count, left, right in wrong[:n]
    ]


def likely_wrong_labels(embeddings: Embeddings, labels: Labels, n: int = 10, *, k: int = 10) -> list[SuspectLabel]:
    """Items whose ``k`` nearest neighbours have another label, those first on which they agree most.

    A neighbour's vote is its cosine; one at an obtuse angle has none.

    Args:
        embeddings: Shape ``(items, dim)``.
        labels: One label an item.
        n: How many items.
        k: Neighbours to ask.

    Raises:
        ConfigError: ``n`` or ``k`` is not positive.
        DataError: There is not one label an item.

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [0.0, 1.0], [0.1, 1.0], [0.2, 1.0]])
        >>> likely_wrong_labels(points, ["a", "a", "b", "b", "b", "b"], k=2)[0].suggested
        'a'
    """
    _check_number(n)
    own = label_numbers(labels, labels)[0].cpu()
    _check_labels(own, embeddings, "items")
    vectors = as_vectors(embeddings, "embeddings")
    cosines, items = top_k(vectors, vectors, k=k, exclude=torch.arange(len(vectors), device=vectors.device))
    cosines, items = cosines.cpu().double(), items.cpu()
    votes = torch.where(items >= 0, cosines, 0.0).clamp(min=0)
    theirs = own[items.clamp(min=0)]
    # Votes for each neighbour's label, summed over the neighbours that share it: items x k x k, a part at a time.
    best, share, own_share = torch.empty_like(own), torch.empty(len(own)).double(), torch.empty(len(own)).double()
    for rows in torch.split(torch.arange(len(own)), 4096):
        total = votes[rows].sum(dim=1).clamp(min=torch.finfo(torch.float64).tiny)
        same = (theirs[rows][:, :, None] == theirs[rows][:, None, :]).double()
        summed = torch.einsum("rij,rj->ri", same, votes[rows])
        top = summed.argmax(dim=1, keepdim=True)
        best[rows], share[rows] = theirs[rows].gather(1, top)[:, 0], summed.gather(1, top)[:, 0] / total
        own_share[rows] = ((theirs[rows] == own[rows, None]) * votes[rows]).sum(dim=1) / total
    wrong = ((best != own) & (share > own_share)).nonzero()[:, 0]
    order = wrong[(share - own_share)[wrong].argsort(descending=True, stable=True)][:n]
    label_of = _names(own, labels, own, labels)
    return [
        SuspectLabel(
            item, label_of[int(own[item])], label_of[int(best[item])], float(share[item]), float(own_share[item])
        )
        for item in order.tolist()
    ]


def near_duplicates(
    embeddings: Embeddings, others: Embeddings, threshold: float | int = 0.99, n: int | None = None
) -> list[NearDuplicate]:
    """Items of one set that have a cosine of ``threshold`` or more with one of another, such as test and training set.

    Of each item at most ten are named; nothing of the size items times others is made.

    Args:
        embeddings: Shape ``(items, dim)``: the test set.
        others: Shape ``(others, dim)``: the training set.
        threshold: Least cosine, from -1 to 1.
        n: At most so many pairs, the nearest; None for all.

    Raises:
        ConfigError: The threshold is out of range, or ``n`` is not positive.

    Example:
        >>> near_duplicates(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0]]))
        [NearDuplicate(item=0, other=0, score=1.0)]
    """
    if not -1 <= threshold <= 1:
        raise ConfigError(f"threshold is a cosine, from -1 to 1, got {threshold}")
    if n is not None:
        _check_number(n)
    scores, items = top_k(embeddings, others, k=MOST_DUPLICATES)
    # Cosines of equal rows are 1 but for the last bits of float32.
    near = ((scores >= threshold - 1e-6) & (items >= 0)).nonzero()
    order = scores[near[:, 0], near[:, 1]].argsort(descending=True, stable=True)[:n]
    return [
        NearDuplicate(row, int(items[row, place]), float(scores[row, place])) for row, place in near[order].tolist()
    ]


def _check_number(n: int) -> None:
    if isinstance(n, bool) or n < 1:
        raise ConfigError(f"n is a positive integer, got {n!r}")


def _check_labels(numbers: Tensor, embeddings: Embeddings, what: str) -> None:
    if len(numbers) != len(embeddings):
        raise DataError(f"got {len(numbers)} labels for {len(embeddings)} {what}; give one label each")


def _searched(
    queries: Embeddings, gallery: Embeddings | None, exclude: Exclude | None, rows: Int64[Tensor, " rows"]
) -> tuple[Tensor, Any]:
    """The gallery, and what some of the queries leave out of it."""
    if gallery is not None:
        return as_vectors(gallery, "gallery"), _of_rows(exclude, rows)
    vectors = as_vectors(queries, "queries")
    if exclude is None:
        return vectors, rows.to(vectors.device)
    further = _of_rows(exclude, rows)

    def itself_too(some: Tensor, columns: Tensor) -> Tensor:
        masked = further(some, columns) if callable(further) else further[some][:, columns]
        masked = torch.as_tensor(masked).to(columns.device)
        return masked | (rows.to(columns.device)[some][:, None] == columns)

    return vectors, itself_too


def _of_rows(exclude: Exclude | None, rows: Tensor) -> Any:
    if exclude is None:
        return None
    if callable(exclude):
        function: Callable[[Tensor, Tensor], Any] = exclude
        return lambda some, columns: function(rows.to(some.device)[some], columns)
    return exclude[rows.cpu().numpy()] if not isinstance(exclude, Tensor) else exclude[rows.to(exclude.device)]


def _names(first: Tensor, names: Labels, second: Tensor, more: Labels) -> dict[int, Hashable]:
    """Number → label, as the user gave it."""
    known: dict[int, Any] = {}
    for numbers, labels in ((second, more), (first, names)):
        listed: Sequence[Any] = labels.tolist() if hasattr(labels, "tolist") else list(labels)
        known.update(zip(numbers.tolist(), listed, strict=True))
    return known
