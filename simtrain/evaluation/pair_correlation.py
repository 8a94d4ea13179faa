"""How well the similarity of pairs follows their graded scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from simtrain.errors import DataError
from simtrain.evaluation.base_metric import BaseMetric, Numbered
from simtrain.evaluation.correlation import CORRELATIONS, correlation, pair_cosines
from simtrain.evaluation.evaluator import embeddings_of
from simtrain.registry import metrics


@metrics.register_module()
class PairCorrelation(BaseMetric):
    """Correlation between the cosine of pairs and their scores, over a whole data set.

    Args:
        prefix: Put before the figures' names, with a slash.

    Example:
        >>> import torch
        >>> metric = PairCorrelation()
        >>> targets = {"pairs": torch.tensor([[0, 1], [0, 2], [0, 3]]), "labels": torch.tensor([0.9, 0.5, 0.0])}
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.5], [0.0, 1.0]])
        >>> metric.process(None, {"embeddings": embeddings, "targets": targets})
        >>> metric.evaluate(size=3)["spearman"]
        1.0
    """

    def process(self, data_batch: Any, data_samples: Any) -> None:
        """Keep similarity and score of each pair of a batch.

        Raises:
            DataError: The batch has no pairs with scores.
        """
        embeddings, targets = embeddings_of(data_samples, type(self).__name__)
        if "pairs" not in targets or "labels" not in targets:
            raise DataError(f"PairCorrelation measures batches of pairs with scores, got the targets {sorted(targets)}")
        pairs = targets["pairs"]
        values = pair_cosines(embeddings[pairs[:, 0]], embeddings[pairs[:, 1]])
        found = list(zip(values.tolist(), targets["labels"].tolist(), strict=True))
        if "items" in targets:
            numbers = targets["items"][pairs].tolist()
            found = [Numbered(tuple(number), value) for number, value in zip(numbers, found, strict=True)]
        self.results += found

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Spearman's and Pearson's correlation."""
        values, scores = (np.array(column, dtype=np.float64) for column in zip(*results, strict=True))
        return {name: correlation(values, scores, name) for name in CORRELATIONS}
