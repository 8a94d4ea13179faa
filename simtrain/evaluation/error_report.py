"""An error analysis of a test set, with the items in it, for people to read and for files."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from simtrain.evaluation.error_analysis import confused_classes, likely_wrong_labels, near_duplicates, worst_queries
from simtrain.evaluation.retrieval import RetrievalTask


def error_report(
    task: RetrievalTask,
    query_embeddings: Tensor,
    gallery_embeddings: Tensor | None = None,
    n: int = 10,
    *,
    others: tuple[Sequence[Any], Tensor] | None = None,
    threshold: float | int = 0.99,
) -> dict[str, list[dict[str, Any]]]:
    """The worst queries of a test; of groups also confused classes and likely wrong labels.

    Args:
        task: The test.
        query_embeddings: Shape ``(queries, dim)``.
        gallery_embeddings: Shape ``(gallery, dim)``; None where the queries are searched among themselves.
        n: How many of each.
        others: Items of another set, such as the training data, and their embeddings: near-duplicates are looked for.
        threshold: Cosine from which on two items are near-duplicates.

    Returns:
        ``worst_queries`` and, where they can be told, ``confused_classes``, ``likely_wrong_labels`` and
        ``near_duplicates``; JSON values, with short texts of the items.
    """
    items = task.queries if task.gallery is None else task.gallery
    words: dict[str, Any] = {"exclude": task.exclude}
    if task.relevant is None:
        words.update(query_labels=_labels(task, task.groups), gallery_labels=_labels(task, task.gallery_groups))
    else:
        words.update(relevant=task.relevant)
    worst = worst_queries(query_embeddings, gallery_embeddings=gallery_embeddings, n=n, **words)
    report = {
        "worst_queries": [
            {
                **one.to_dict(),
                "item": shown(task.queries[one.query]),
                "found_items": [shown(items[i]) for i in one.found],
            }
            for one in worst
        ]
    }
    if task.relevant is None and task.groups is not None:
        classes = confused_classes(query_embeddings, gallery_embeddings=gallery_embeddings, n=n, **words)
        report["confused_classes"] = [one.to_dict() for one in classes]
    if task.gallery is None and task.groups is not None:
        suspects = likely_wrong_labels(query_embeddings, words["query_labels"], n=n)
        report["likely_wrong_labels"] = [{**one.to_dict(), "text": shown(task.queries[one.item])} for one in suspects]
    if others is not None:
        tested = query_embeddings if gallery_embeddings is None else gallery_embeddings
        found = near_duplicates(tested, others[1], threshold, n)
        report["near_duplicates"] = [
            {**one.to_dict(), "text": shown(items[one.item]), "other_text": shown(others[0][one.other])}
            for one in found
        ]
    return report


def _labels(task: RetrievalTask, groups: Tensor | None) -> Any:
    """What groups are called, where that is known."""
    if groups is None or not task.label_names:
        return groups
    return [task.label_names.get(group, group) for group in groups.tolist()]


def shown(item: Any) -> str:
    """A short text of an item."""
    return item if isinstance(item, str) and len(item) <= 200 else reprlib.repr(item)
