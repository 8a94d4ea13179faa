"""Evaluation on seeded subsets of a test set, where all of it is too dear."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from simtrain.cache import CachedModel
from simtrain.errors import ConfigError
from simtrain.evaluation.post_processing import PostProcessing
from simtrain.evaluation.retrieval import RetrievalResult, RetrievalTask, encode_task, retrieval_task
from simtrain.evaluation.table import markdown_table
from simtrain.metrics.formulas import Denominator, checked_denominator
from simtrain.metrics.unmatched import Empty, checked_empty
from simtrain.models import SimilarityModel


@dataclass(frozen=True)
class SubsetResult:
    """Results over several subsets of one test set.

    Attributes:
        results: One for each subset.
    """

    results: list[RetrievalResult]

    @property
    def mean(self) -> dict[str, float]:
        """Metric name → mean over the subsets."""
        return {name: float(values.mean()) for name, values in self._values().items()}

    @property
    def deviation(self) -> dict[str, float]:
        """Metric name → sample standard deviation over the subsets; 0.0 for one subset."""
        return {name: float(v.std(ddof=1)) if len(v) > 1 else 0.0 for name, v in self._values().items()}

    def table(self, names: Sequence[str] = ()) -> str:
        """Markdown table: metric, mean, deviation; of all metrics, or those that are named."""
        mean, deviation = self.mean, self.deviation
        rows = [[name, f"{mean[name]:.3f}", f"{deviation[name]:.3f}"] for name in names or mean]
        return markdown_table(["metric", f"mean of {len(self.results)}", "deviation"], rows)

    def as_dict(self) -> dict[str, Any]:
        """Mean, deviation and each subset's metrics as JSON values."""
        runs = [result.metrics for result in self.results]
        return {"mean": self.mean, "deviation": self.deviation, "n_subsets": len(runs), "subsets": runs}

    def _values(self) -> dict[str, np.ndarray]:
        runs = [result.metrics for result in self.results]
        return {name: np.array([run[name] for run in runs], dtype=np.float64) for name in runs[0]}


def evaluate_subsets(
    model: SimilarityModel | CachedModel,
    data: Any,
    n_queries: int,
    repeats: int = 5,
    seed: int = 0,
    k: int | Sequence[int] = (1, 5, 10),
    *,
    n_gallery: int | None = None,
    batch_size: int = 32,
    show_progress: bool | None = None,
    post: PostProcessing | None = None,
    denominator: Denominator = "min_k_relevant",
    empty: Empty = "skip",
) -> SubsetResult:
    """Measure several random subsets of a test set.

    A subset of groups is made of whole groups, in random order, until it has ``n_queries`` items: nothing is lost of
    what an item has to find, but there is less to find it among, and figures are higher than those of the whole set.
    A subset of a test with a gallery has ``n_queries`` queries, all that is relevant to them, and further gallery items
    up to ``n_gallery``. Figures of two models compare only over the same sizes and seed.

    Args:
        model: The model.
        data: As for :func:`simtrain.evaluate`.
        n_queries: Queries of each subset (of groups: at least so many items, where there are as many).
        repeats: How many subsets.
        seed: Seed of the choice.
        k: Depths of the metrics at k.
        n_gallery: Gallery items of each subset; None searches the whole gallery.
        batch_size: Items a batch while encoding.
        show_progress: Show a progress bar; None shows one on a terminal for work of over a second.
        post: What is done to the embeddings.
        denominator: Divisor of ``map@k``, see :func:`simtrain.evaluate`.
        empty: What to do about queries without a relevant item, see there.

    Returns:
        The subsets' results, their mean and deviation.

    Raises:
        ConfigError: A number is not positive.
        DataError: As for :func:`simtrain.evaluate`.

    Example:
        >>> from simtrain.data import SimilarityGroupSample
        >>> from simtrain.encoders import PrecomputedEncoder
        >>> from simtrain.heads import EmptyHead
        >>> model = SimilarityModel(PrecomputedEncoder(2), EmptyHead(2))
        >>> samples = [SimilarityGroupSample((1.0, group + copy / 9), group) for group in range(5) for copy in range(2)]
        >>> result = evaluate_subsets(model, samples, n_queries=4, repeats=3, k=(1,))
        >>> [one.n_queries for one in result.results]
        [4, 4, 4]
    """
    check_numbers(n_queries=n_queries, repeats=repeats, n_gallery=n_gallery)
    words: dict[str, Any] = {"denominator": checked_denominator(denominator), "empty": checked_empty(empty)}
    task = retrieval_task(data)
    options: dict[str, Any] = {"batch_size": batch_size, "show_progress": show_progress}
    parts, results = list(subsets(task, n_queries, repeats, seed, n_gallery)), []
    for part in parts:
        part.check_matched(empty)
    for part in parts:
        results.append(part.score(*encode_task(model, part, **options), k=k, post=post, **words))
    return SubsetResult(results)


def check_numbers(**numbers: int | None) -> None:
    """Raise a :class:`ConfigError` where a number is given that is not positive."""
    for word, value in numbers.items():
        if value is not None and value < 1:
            raise ConfigError(f"{word} should be a positive integer, got {value}")


def subsets(
    task: RetrievalTask, n_queries: int, repeats: int, seed: int = 0, n_gallery: int | None = None
) -> Iterator[RetrievalTask]:
    """Random parts of a task; see :func:`evaluate_subsets`."""
    for number in range(repeats):
        rng = np.random.default_rng([seed, number])
        if task.gallery is None:
            yield _of_groups(task, n_queries, rng)
            continue
        queries = torch.from_numpy(np.sort(rng.permutation(len(task.queries))[:n_queries]))
        yield _part(task, queries, _gallery_rows(task, queries, n_gallery, rng))


def _of_groups(task: RetrievalTask, n_items: int, rng: np.random.Generator) -> RetrievalTask:
    assert task.groups is not None
    groups = task.groups.numpy()
    known, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = rng.permutation(len(known))
    enough = int(np.searchsorted(np.cumsum(counts[order]), n_items)) + 1
    chosen = np.zeros(len(known), dtype=bool)
    chosen[order[:enough]] = True
    rows = np.nonzero(chosen[inverse.reshape(-1)])[0]
    return replace(task, queries=[task.queries[row] for row in rows], groups=task.groups[torch.from_numpy(rows)])


def _gallery_rows(
    task: RetrievalTask, queries: Int64[Tensor, " rows"], n_gallery: int | None, rng: np.random.Generator
) -> Int64[Tensor, " columns"]:
    assert task.gallery is not None
    size = len(task.gallery)
    if n_gallery is None or n_gallery >= size:
        return torch.arange(size)
    if task.relevant is not None:
        needed = task.relevant[torch.isin(task.relevant[:, 0], queries), 1]
    else:
        assert task.groups is not None
        assert task.gallery_groups is not None
        needed = torch.isin(task.gallery_groups, task.groups[queries]).nonzero()[:, 0]
    keep = torch.zeros(size, dtype=torch.bool)
    keep[needed] = True
    others = rng.permutation((~keep).nonzero()[:, 0].numpy())[: max(0, n_gallery - int(keep.sum()))]
    keep[torch.from_numpy(others)] = True
    return keep.nonzero()[:, 0]


def _part(task: RetrievalTask, queries: Tensor, gallery: Tensor) -> RetrievalTask:
    assert task.gallery is not None
    exclude = task.exclude
    numbers = [torch.full((size,), -1) for size in (len(task.queries), len(task.gallery))]
    for number, rows in zip(numbers, (queries, gallery), strict=True):
        number[rows] = torch.arange(len(rows))

    def renumbered(pairs: Tensor | None) -> Tensor | None:
        return None if pairs is None else torch.stack([numbers[side][pairs[:, side]] for side in (0, 1)], dim=1)

    relevant, graded = renumbered(task.relevant), renumbered(task.graded)
    kept = None if relevant is None else (relevant >= 0).all(dim=1)
    inside = None if graded is None else (graded >= 0).all(dim=1)
    return RetrievalTask(
        [task.queries[row] for row in queries.tolist()],
        [task.gallery[row] for row in gallery.tolist()],
        relevant=None if relevant is None else relevant[kept],
        gains=None if task.gains is None else task.gains[kept],
        groups=None if task.groups is None else task.groups[queries],
        gallery_groups=None if task.gallery_groups is None else task.gallery_groups[gallery],
        exclude=None if exclude is None else lambda some, columns: exclude(queries[some], gallery[columns]),
        graded=None if graded is None else graded[inside],
        grades=None if task.grades is None else task.grades[inside],
        label_names=task.label_names,
        query_names=None if task.query_names is None else [task.query_names[row] for row in queries.tolist()],
    )
