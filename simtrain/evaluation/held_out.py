"""A retrieval test with data of its own, measured with the model at the end of each epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from simtrain.cache import CachedModel
from simtrain.errors import ConfigError, nearest
from simtrain.evaluation.post_processing import PostProcessing
from simtrain.evaluation.process_group import by_first_process
from simtrain.evaluation.retrieval import RetrievalTask, retrieval_task
from simtrain.evaluation.retrieval_result import RetrievalResult
from simtrain.evaluation.set_reading import read_test_set
from simtrain.evaluation.shared_encoding import task_encoded_together
from simtrain.evaluation.subsets import SubsetResult, check_numbers, subsets
from simtrain.metrics.formulas import Denominator, checked_denominator
from simtrain.metrics.query_measures import checked_cuts
from simtrain.metrics.unmatched import Empty, checked_empty
from simtrain.models import SimilarityModel
from simtrain.registry import metrics


@metrics.register_module()
class HeldOutRetrieval:
    """Retrieval over a test set of its own: queries that search a gallery, a BEIR folder, groups, pairs.

    Give it to :class:`~simtrain.TrainableModel` as one of its ``evaluators``. At the end of each validation (and test)
    the model encodes the set's items and the figures are logged as ``<name>_<figure>_<stage>``, whatever the
    validation loader holds. Several processes encode a part each, and the figures are those of one.

    Args:
        data: What :func:`simtrain.evaluate` takes, or the path of it.
        k: Depths of the metrics at k.
        names: Figures to give; default: all.
        kind: Of a path: see :func:`~simtrain.evaluation.read_test_set`.
        columns: Of a path: which column holds what.
        split: Of a BEIR folder: which judgements.
        n_queries: Measure seeded subsets of so many queries, see :func:`~simtrain.evaluation.evaluate_subsets`; None
            measures the whole set.
        repeats: How many subsets; of several, the figures are means, and ``<figure>/deviation`` is their deviation.
        n_gallery: Gallery items of each subset; None takes all.
        seed: Seed of the subsets, the same ones in each epoch.
        batch_size: Items a batch while encoding.
        post: What is done to the embeddings.
        denominator: Divisor of ``map@k``, see :func:`simtrain.evaluate`.
        empty: What to do about queries without a relevant item, see there.

    Raises:
        ConfigError: An option is out of range, or a figure unknown.
        DataError: The data are no test set, or a query has nothing to find and ``empty`` is ``"error"``.

    Example:
        >>> from simtrain.data import QueryGallery
        >>> from simtrain.encoders import PrecomputedEncoder
        >>> from simtrain.heads import EmptyHead
        >>> test = QueryGallery([(1.0, 0.0)], [(0.0, 1.0), (1.0, 0.1)], [7], [8, 7])
        >>> model = SimilarityModel(PrecomputedEncoder(2), EmptyHead(2))
        >>> HeldOutRetrieval(test, names=["mrr"]).evaluate_model(model)
        {'mrr': 1.0}
    """

    def __init__(
        self,
        data: Any,
        k: int | Sequence[int] = (1, 5, 10),
        names: Sequence[str] | None = None,
        *,
        kind: str = "pairs",
        columns: Mapping[str, str] | None = None,
        split: str = "test",
        n_queries: int | None = None,
        repeats: int = 1,
        n_gallery: int | None = None,
        seed: int = 0,
        batch_size: int = 32,
        post: PostProcessing | None = None,
        denominator: Denominator = "min_k_relevant",
        empty: Empty = "skip",
    ) -> None:
        check_numbers(n_queries=n_queries, repeats=repeats, n_gallery=n_gallery, batch_size=batch_size)
        if n_queries is None and (repeats != 1 or n_gallery is not None):
            raise ConfigError("repeats and n_gallery are of subsets: say with n_queries how large they are")
        self.k, self.repeats, self.batch_size = checked_cuts(k), repeats, batch_size
        self.options: dict[str, Any] = {
            "post": post,
            "denominator": checked_denominator(denominator),
            "empty": checked_empty(empty),
        }
        given = read_test_set(data, kind, columns, split=split) if isinstance(data, (str, Path)) else data
        task = retrieval_task(given)
        self.tasks = [task] if n_queries is None else list(subsets(task, n_queries, repeats, seed, n_gallery))
        for one in self.tasks:
            one.check_matched(empty)
        self.names = None if names is None else list(names)
        for name in names or ():
            if name not in self._known(task):
                raise ConfigError(f"HeldOutRetrieval has no figure {name!r}; {nearest(name, self._known(task))}")

    def evaluate_model(self, model: SimilarityModel | CachedModel) -> dict[str, float]:
        """Encode the set with a model and measure it; all processes must call it, and have the same figures.

        Raises:
            DataError: The model gives embeddings that are not finite.
        """
        options: dict[str, Any] = {"batch_size": self.batch_size}
        encoded = [(task, task_encoded_together(model, task, **options)) for task in self.tasks]
        return by_first_process(lambda: self._figures([self._scored(*one) for one in encoded]))

    def __deepcopy__(self, memo: dict[int, Any]) -> HeldOutRetrieval:
        return self  # it keeps nothing of an epoch, and its data may be large

    def _scored(self, task: RetrievalTask, embeddings: tuple[Tensor, Tensor | None] | None) -> RetrievalResult:
        assert embeddings is not None  # the first process has them
        return task.score(*embeddings, self.k, **self.options)

    def _figures(self, results: list[RetrievalResult]) -> dict[str, float]:
        several = SubsetResult(results)
        figures = dict(several.mean)
        chosen = {name: figures[name] for name in self.names or figures}
        if self.repeats == 1:
            return chosen
        return {**chosen, **{f"{name}/deviation": several.deviation[name] for name in chosen}}

    def _known(self, task: RetrievalTask) -> list[str]:
        at_k = [f"{name}@{k}" for k in self.k for name in ("precision", "recall", "hit_rate", "map", "ndcg")]
        return ["mrr", "r_precision", "map@r", *at_k, *(("spearman", "pearson") if task.graded is not None else ())]
