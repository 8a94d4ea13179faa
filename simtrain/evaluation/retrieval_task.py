"""What a retrieval test searches with, in what, and which of it is relevant; made of samples."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from simtrain.data import QueryGallery
from simtrain.data.loaders import read_samples
from simtrain.data.samples import SimilarityGroupSample, SimilarityPairSample, SimilarityTripletSample
from simtrain.errors import DataError
from simtrain.evaluation.correlation import pair_cosines
from simtrain.evaluation.judged_search import JudgedSearch
from simtrain.evaluation.matrix_scores import matrix_scores
from simtrain.evaluation.pair_scores import PairScores
from simtrain.evaluation.post_processing import PostProcessing
from simtrain.evaluation.reciprocal_reranking import ReciprocalReranking, reranked
from simtrain.evaluation.retrieval_result import RetrievalResult
from simtrain.metrics import retrieval_scores
from simtrain.metrics.exclusion import Exclusion
from simtrain.metrics.formulas import Denominator
from simtrain.metrics.unmatched import Empty, check_matched
from simtrain.metrics.which_relevance import which_relevance

COUNTS = ("query", "n_queries", "n_queries_without_match")
CHUNK = 65_536


@dataclass(frozen=True)
class RetrievalTask:
    """Queries, the items that are searched, and which of them are relevant.

    Attributes:
        queries: Raw query items.
        gallery: Raw items to search; None searches the queries among themselves (each without itself).
        relevant: Pairs (row of the query, row of the relevant item), shape ``(n, 2)``; for a task with a gallery.
        gains: Grade of each of ``relevant``, for NDCG; None: all count alike.
        groups: Group of each query; for a task without pairs.
        gallery_groups: Group of each gallery item; for a task with groups and a gallery.
        exclude: Tells which pairs of query and gallery item do not count; None: all count.
        graded: Pairs (row of the query, row of the gallery item) whose scores are graded, shape ``(n, 2)``.
        grades: Their scores, shape ``(n,)``.
        label_names: Label that each group stands for, where that is known.
        query_names: Name of each query, where it has one.
    """

    queries: list[Any]
    gallery: list[Any] | None
    relevant: Tensor | None = None
    gains: Tensor | None = None
    groups: Tensor | None = None
    gallery_groups: Tensor | None = None
    exclude: Callable[[Tensor, Tensor], Tensor] | None = None
    graded: Tensor | None = None
    grades: Tensor | None = None
    label_names: Mapping[int, Hashable] = field(default_factory=dict)
    query_names: Sequence[str] | None = None

    def check_matched(self, empty: Empty) -> None:
        """Tell before anything is encoded that a query has nothing to find, where that is an error.

        Raises:
            DataError: There is such a query, and ``empty`` is ``"error"``.
        """
        if empty != "error":
            return
        alone, n_queries = self.gallery is None, len(self.queries)
        n_gallery = n_queries if self.gallery is None else len(self.gallery)
        labels = self.groups if alone else self.gallery_groups
        relevance = which_relevance(self.groups, labels, self.relevant, None, n_queries, n_gallery)
        own = torch.arange(n_queries) if alone else None
        check_matched(relevance, Exclusion(own, self.exclude, n_queries=n_queries, n_gallery=n_gallery), empty)

    def score(
        self,
        query_embeddings: Tensor,
        gallery_embeddings: Tensor | None = None,
        k: int | Sequence[int] = (1, 5, 10),
        post: PostProcessing | None = None,
        *,
        denominator: Denominator = "min_k_relevant",
        empty: Empty = "skip",
        show_progress: bool | None = None,
    ) -> RetrievalResult:
        """Figures for embeddings of the queries and, where there is one, of the gallery.

        Args:
            query_embeddings: Shape ``(queries, dim)``.
            gallery_embeddings: Shape ``(gallery, dim)``.
            k: Depths of the metrics at k.
            post: What is done to the embeddings, and after the search; correlations of graded pairs are without it.
            denominator: Divisor of ``map@k``, see :func:`simtrain.metrics.retrieval_report`.
            empty: What to do about queries without a relevant item, see there.
            show_progress: Show a progress bar; None shows one for work of over a second.

        Raises:
            ConfigError: An option is not accepted.
            DataError: Embeddings hold NaN, or do not fit the task.
        """
        queries, gallery = query_embeddings, gallery_embeddings
        if post is not None:
            queries, gallery = post.embeddings(queries, gallery, self.exclude)
        words: dict[str, Any] = {"k": k, "denominator": denominator, "empty": empty}
        words.update(self._relevance(gallery is None))
        if post is None or not post.reranking:
            scores = retrieval_scores(queries, gallery_embeddings=gallery, show_progress=show_progress, **words)
        else:
            scores = self._reranked(post.reranker(queries, gallery, show_progress), gallery is None, words)
        n_gallery = len(queries) - 1 if gallery is None else len(gallery)
        # A relevant item has a rank, however late.
        n_without = len(queries) - int((scores["mrr"] > 0).sum())
        values = {name: value for name, value in scores.items() if name not in COUNTS}
        pair_scores = self._pair_scores(query_embeddings, gallery_embeddings)
        words = {"query_rows": scores["query"], "pair_scores": pair_scores, "n_without_match": n_without}
        return RetrievalResult(values, n_gallery, **words)

    def _relevance(self, alone: bool) -> dict[str, Any]:
        if self.relevant is not None:
            return {"relevant": self.relevant, "grades": self.gains, "exclude": self.exclude}
        labels = {} if alone else {"gallery_labels": self.gallery_groups}
        return {"query_labels": self.groups, "exclude": self.exclude, **labels}

    def _reranked(self, reranker: ReciprocalReranking, alone: bool, words: dict[str, Any]) -> dict[str, Tensor]:
        if alone:
            words.update(gallery_labels=self.groups, exclude=_is_itself)
        return matrix_scores(reranked(reranker), reranker.n_queries, reranker.n_gallery, **words)

    def _pair_scores(self, queries: Tensor, gallery: Tensor | None) -> PairScores | None:
        if self.graded is None or self.grades is None or gallery is None:
            return None
        parts = torch.split(self.graded, CHUNK)
        cosines = torch.cat([pair_cosines(queries[part[:, 0]], gallery[part[:, 1]]) for part in parts])
        return PairScores(cosines.numpy(), self.grades.double().numpy())


def retrieval_task(data: Any) -> RetrievalTask:
    """Make a retrieval task of samples.

    Pairs: the distinct queries (``obj_a``) search the distinct documents (``obj_b``); the documents that a query
    is paired with (score above 0) are relevant to it; where scores are graded, similarities are correlated with them,
    too. Triplets: likewise, with the negatives among the documents.
    Groups: each item searches all others; those of its group are relevant. A
    :class:`~simtrain.data.QueryGallery`: its queries search its gallery, without the pairs that it excludes. A
    :class:`~simtrain.evaluation.JudgedSearch` (of BEIR, say): what is judged with a grade above 0 is relevant.

    Args:
        data: A data set or list of pair, triplet or group samples, a query/gallery test or a judged search.

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
        words: dict[str, Any] = {"exclude": data.exclude, "label_names": data.label_names}
        return RetrievalTask(*items, groups=groups, gallery_groups=gallery_groups, **words)
    if isinstance(data, JudgedSearch):
        items = list(data.queries), list(data.documents)
        words = {"exclude": data.exclude, "query_names": list(data.query_ids)}
        return RetrievalTask(*items, relevant=data.relevant(), gains=data.gains(), **words)
    samples = read_samples(data)
    if samples and all(isinstance(sample, SimilarityPairSample) for sample in samples):
        return _pair_task(samples)
    if samples and all(isinstance(sample, SimilarityTripletSample) for sample in samples):
        matches = [SimilarityPairSample(sample.anchor, sample.positive) for sample in samples]
        wrong = [SimilarityPairSample(sample.anchor, item, 0.0) for sample in samples for item in sample.negatives]
        return _pair_task([*matches, *wrong])
    if samples and all(isinstance(sample, SimilarityGroupSample) for sample in samples):
        groups = torch.tensor([sample.group for sample in samples], dtype=torch.long)
        names = getattr(data, "label_names", None) or {}
        return RetrievalTask([sample.obj for sample in samples], None, groups=groups, label_names=names)
    kinds = sorted({type(sample).__name__ for sample in samples}) or ["no sample"]
    raise DataError(f"evaluation takes samples of one kind, pairs, triplets or groups; got {', '.join(kinds)}")


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
    if all(sample.score in (0.0, 1.0) for sample in samples):
        return RetrievalTask(list(queries), list(gallery), relevant=relevant)
    graded = torch.tensor([(queries[sample.obj_a], gallery[sample.obj_b]) for sample in samples])
    grades = torch.tensor([float(sample.score) for sample in samples], dtype=torch.float64)
    return RetrievalTask(list(queries), list(gallery), relevant=relevant, graded=graded, grades=grades)


def _is_itself(queries: Tensor, gallery: Tensor) -> Tensor:
    return queries[:, None] == gallery
