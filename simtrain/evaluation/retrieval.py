"""Retrieval figures of a model on pairs or groups, with intervals, and the comparison of two models."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from simtrain.cache import CachedModel
from simtrain.data import QueryGallery
from simtrain.data.loaders import read_samples
from simtrain.data.samples import SimilarityGroupSample, SimilarityPairSample, SimilarityTripletSample
from simtrain.errors import DataError
from simtrain.evaluation.significance import PairedTest, bootstrap_interval, paired_test
from simtrain.metrics import retrieval_scores
from simtrain.models import SimilarityModel

COUNTS = ("query", "n_queries", "n_queries_without_match")


@dataclass(frozen=True)
class RetrievalResult:
    """Figures of one model on one test set.

    Attributes:
        scores: Metric name → its value for each query, shape ``(n_queries,)``.
        n_gallery: Number of items that were searched.
        confidence: Level of the intervals.
        seed: Seed of the resampling.
        n_resamples: Resamples of an interval and of a test; a p-value is at least one in so many.
    """

    scores: dict[str, Tensor] = field(repr=False)
    n_gallery: int
    confidence: float = 0.95
    seed: int = 0
    n_resamples: int = 2_000

    @property
    def n_queries(self) -> int:
        """Number of queries with at least one relevant item."""
        return len(next(iter(self.scores.values())))

    @property
    def metrics(self) -> dict[str, float]:
        """Metric name → mean over the queries."""
        return {name: float(values.mean()) for name, values in self.scores.items()}

    def interval(self, name: str) -> tuple[float, float]:
        """Bootstrap interval of a metric's mean over the queries."""
        return bootstrap_interval(self.scores[name], self.confidence, self.n_resamples, self.seed)

    def compare(self, other: RetrievalResult, name: str) -> PairedTest:
        """Test whether ``other`` differs from this result in a metric, query by query.

        Args:
            other: Result of another model over the same queries.
            name: The metric.

        Returns:
            Its ``difference`` is above zero where ``other`` is better.

        Raises:
            DataError: The two results are not over the same number of queries.
        """
        if self.n_queries != other.n_queries:
            raise DataError(
                f"a paired comparison needs the same queries on both sides, got {self.n_queries} and {other.n_queries}"
            )
        return paired_test(
            other.scores[name], self.scores[name], self.n_resamples, self.seed, confidence=self.confidence
        )

    def as_dict(self, names: Sequence[str] = ()) -> dict[str, Any]:
        """Figures and intervals as JSON values; all metrics, or those that are named."""
        chosen = {name: mean for name, mean in self.metrics.items() if not names or name in names}
        intervals = {name: list(self.interval(name)) for name in chosen}
        counts = {"n_queries": self.n_queries, "n_gallery": self.n_gallery}
        return {"metrics": chosen, "intervals": intervals, "confidence": self.confidence, **counts}


@dataclass(frozen=True)
class RetrievalTask:
    """Queries, the items that are searched, and which of them are relevant.

    Attributes:
        queries: Raw query items.
        gallery: Raw items to search; None searches the queries among themselves (each without itself).
        relevant: Pairs (row of the query, row of the relevant item), shape ``(n, 2)``; for a task with a gallery.
        groups: Group of each query; for a task without pairs.
        gallery_groups: Group of each gallery item; for a task with groups and a gallery.
        exclude: Tells which pairs of query and gallery item do not count; None: all count.
    """

    queries: list[Any]
    gallery: list[Any] | None
    relevant: Tensor | None = None
    groups: Tensor | None = None
    gallery_groups: Tensor | None = None
    exclude: Callable[[Tensor, Tensor], Tensor] | None = None

    def score(
        self, query_embeddings: Tensor, gallery_embeddings: Tensor | None = None, k: Sequence[int] = (1, 5, 10)
    ) -> RetrievalResult:
        """Figures for embeddings of the queries and, where there is one, of the gallery."""
        if gallery_embeddings is None:
            scores = retrieval_scores(query_embeddings, self.groups, k=k)
            n_gallery = len(query_embeddings) - 1
        elif self.relevant is None:
            scores = retrieval_scores(
                query_embeddings, self.groups, gallery_embeddings, self.gallery_groups, k=k, exclude=self.exclude
            )
            n_gallery = len(gallery_embeddings)
        else:
            scores = retrieval_scores(
                query_embeddings, gallery_embeddings=gallery_embeddings, relevant=self.relevant, k=k
            )
            n_gallery = len(gallery_embeddings)
        values = {name: value for name, value in scores.items() if name not in COUNTS}
        return RetrievalResult(values, n_gallery)


def retrieval_task(data: Any) -> RetrievalTask:
    """Make a retrieval task of samples.

    Pairs: the distinct queries (``obj_a``) search the distinct documents (``obj_b``); the documents that a query
    is paired with (score above 0) are relevant to it. Triplets: likewise, with the negatives among the documents.
    Groups: each item searches all others; those of its group are relevant. A
    :class:`~simtrain.data.QueryGallery`: its queries search its gallery, without the pairs that it excludes.

    Args:
        data: A data set or list of pair, triplet or group samples, or a query/gallery test.

    Raises:
        DataError: There are no samples, they are of mixed kinds, or an item of a pair is not hashable.

    Example:
        >>> task = retrieval_task([SimilarityPairSample("q", "d1"), SimilarityPairSample("q", "d2")])
        >>> task.queries, task.gallery, task.relevant.tolist()
        (['q'], ['d1', 'd2'], [[0, 0], [0, 1]])
    """
    if isinstance(data, QueryGallery):
        groups, gallery_groups = (torch.tensor(list(part)) for part in (data.query_labels, data.gallery_labels))
        items = list(data.queries), list(data.gallery)
        return RetrievalTask(*items, groups=groups, gallery_groups=gallery_groups, exclude=data.exclude)
    samples = read_samples(data)
    if samples and all(isinstance(sample, SimilarityPairSample) for sample in samples):
        return _pair_task(samples)
    if samples and all(isinstance(sample, SimilarityTripletSample) for sample in samples):
        matches = [SimilarityPairSample(sample.anchor, sample.positive) for sample in samples]
        wrong = [SimilarityPairSample(sample.anchor, item, 0.0) for sample in samples for item in sample.negatives]
        return _pair_task([*matches, *wrong])
    if samples and all(isinstance(sample, SimilarityGroupSample) for sample in samples):
        groups = torch.tensor([sample.group for sample in samples], dtype=torch.long)
        return RetrievalTask([sample.obj for sample in samples], None, groups=groups)
    kinds = sorted({type(sample).__name__ for sample in samples}) or ["no sample"]
    raise DataError(f"evaluation takes samples of one kind, pairs, triplets or groups; got {', '.join(kinds)}")


def evaluate(
    model: SimilarityModel | CachedModel,
    data: Any,
    k: Sequence[int] = (1, 5, 10),
    *,
    batch_size: int = 32,
    show_progress: bool | None = None,
) -> RetrievalResult:
    """Encode the items of a test set and measure how well each query finds what is relevant to it.

    Args:
        model: The model.
        data: Samples or a data set of them; see :func:`retrieval_task` for what is searched where.
        k: Depths of the metrics at k.
        batch_size: Items a batch while encoding.
        show_progress: Show a progress bar; None shows one on a terminal for work of over a second.

    Returns:
        Figures by query, their means and intervals. The search is exact, by cosine.

    Raises:
        DataError: The samples are no test set; see :func:`retrieval_task`.

    Example:
        >>> from simtrain.encoders import PrecomputedEncoder
        >>> from simtrain.heads import EmptyHead
        >>> model = SimilarityModel(PrecomputedEncoder(2), EmptyHead(2))
        >>> samples = [SimilarityPairSample((1.0, 0.0), (0.9, 0.1)), SimilarityPairSample((0.0, 1.0), (0.2, 0.7))]
        >>> evaluate(model, samples, k=(1,)).metrics["recall@1"]
        1.0
    """
    task = retrieval_task(data)
    options: dict[str, Any] = {"batch_size": batch_size, "to_numpy": False, "show_progress": show_progress}
    if task.gallery is None:
        return task.score(model.encode(task.queries, **options), k=k)
    queries = model.encode_query(task.queries, **options)
    return task.score(queries, model.encode_document(task.gallery, **options), k=k)


def _pair_task(samples: Sequence[SimilarityPairSample]) -> RetrievalTask:
    for row, sample in enumerate(samples):
        if not isinstance(sample.obj_a, Hashable) or not isinstance(sample.obj_b, Hashable):
            raise DataError(
                f"pair {row}: its items should be hashable (texts, tuples, paths) so that equal ones can be told; "
                f"got {type(sample.obj_a).__name__} and {type(sample.obj_b).__name__}"
            )
    queries = {query: row for row, query in enumerate(dict.fromkeys(sample.obj_a for sample in samples))}
    gallery = {item: row for row, item in enumerate(dict.fromkeys(sample.obj_b for sample in samples))}
    matches = [(queries[sample.obj_a], gallery[sample.obj_b]) for sample in samples if sample.score > 0]
    relevant = torch.tensor(list(dict.fromkeys(matches)), dtype=torch.long).reshape(-1, 2)
    return RetrievalTask(list(queries), list(gallery), relevant=relevant)
