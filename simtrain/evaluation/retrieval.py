"""Retrieval figures of a model on pairs, triplets, groups or queries and a gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

from torch import Tensor

from simtrain.cache import CachedModel
from simtrain.evaluation.post_processing import PostProcessing
from simtrain.evaluation.retrieval_result import RetrievalResult
from simtrain.evaluation.retrieval_task import COUNTS, RetrievalTask, retrieval_task
from simtrain.metrics.formulas import Denominator, checked_denominator
from simtrain.metrics.query_measures import checked_cuts
from simtrain.metrics.unmatched import Empty, checked_empty
from simtrain.models import SimilarityModel

__all__ = ["COUNTS", "RetrievalResult", "RetrievalTask", "encode_task", "evaluate", "retrieval_task"]


@overload
def evaluate(
    model: SimilarityModel | CachedModel,
    data: Mapping[str, Any],
    k: int | Sequence[int] = ...,
    *,
    batch_size: int = ...,
    show_progress: bool | None = ...,
    post: PostProcessing | None = ...,
    denominator: Denominator = ...,
    empty: Empty = ...,
) -> dict[str, RetrievalResult]: ...


@overload
def evaluate(
    model: SimilarityModel | CachedModel,
    data: Any,
    k: int | Sequence[int] = ...,
    *,
    batch_size: int = ...,
    show_progress: bool | None = ...,
    post: PostProcessing | None = ...,
    denominator: Denominator = ...,
    empty: Empty = ...,
) -> RetrievalResult: ...


def evaluate(
    model: SimilarityModel | CachedModel,
    data: Any,
    k: int | Sequence[int] = (1, 5, 10),
    *,
    batch_size: int = 32,
    show_progress: bool | None = None,
    post: PostProcessing | None = None,
    denominator: Denominator = "min_k_relevant",
    empty: Empty = "skip",
) -> Any:
    """Encode the items of a test set and measure how well each query finds what is relevant to it.

    Args:
        model: The model.
        data: Samples or a data set of them, a query/gallery test or a judged search; see :func:`retrieval_task` for
            what is searched where. A mapping from names to these measures several test sets.
        k: Depths of the metrics at k.
        batch_size: Items a batch while encoding.
        show_progress: Show a progress bar; None shows one on a terminal for work of over a second.
        post: Whitening, expansion of queries, re-ranking and so on; default: nothing.
        denominator: Divisor of ``map@k``: ``"min_k_relevant"``, ``"relevant"`` or ``"hits"``; whose figure each is says
            the table at :func:`~simtrain.metrics.formulas.average_precision`.
        empty: Queries without a relevant item are left out (``"skip"``), count as 0 (``"zero"``), or are an error
            (``"error"``). The result counts them.

    Returns:
        Figures by query, their means and intervals; of several test sets, by name. The search is exact, by cosine.

    Raises:
        ConfigError: An option is not accepted.
        DataError: The samples are no test set (see :func:`retrieval_task`), or a query has nothing to find and
            ``empty`` is ``"error"``.

    Example:
        >>> from simtrain.data import SimilarityPairSample
        >>> from simtrain.encoders import PrecomputedEncoder
        >>> from simtrain.heads import EmptyHead
        >>> model = SimilarityModel(PrecomputedEncoder(2), EmptyHead(2))
        >>> samples = [SimilarityPairSample((1.0, 0.0), (0.9, 0.1)), SimilarityPairSample((0.0, 1.0), (0.2, 0.7))]
        >>> evaluate(model, samples, k=(1,)).metrics["recall@1"]
        1.0
    """
    options: dict[str, Any] = {"batch_size": batch_size, "show_progress": show_progress}
    words: dict[str, Any] = {"post": post, "denominator": denominator, "empty": empty}
    if isinstance(data, Mapping):
        return {name: evaluate(model, part, k, **options, **words) for name, part in data.items()}
    # What is wrong shows before all is encoded.
    checked_cuts(k), checked_denominator(denominator), checked_empty(empty)
    task = retrieval_task(data)
    task.check_matched(empty)
    return task.score(*encode_task(model, task, **options), k=k, show_progress=show_progress, **words)


def encode_task(
    model: SimilarityModel | CachedModel,
    task: RetrievalTask,
    *,
    batch_size: int = 32,
    show_progress: bool | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Embeddings of a task's queries and gallery; of a task without a gallery, of its items and None."""
    options: dict[str, Any] = {"batch_size": batch_size, "to_numpy": False, "show_progress": show_progress}
    if task.gallery is None:
        return model.encode(task.queries, **options), None
    return model.encode_query(task.queries, **options), model.encode_document(task.gallery, **options)
