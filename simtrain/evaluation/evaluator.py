"""Several metrics over one data set: fed batch by batch, measured at its end."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from simtrain import registry
from simtrain.errors import ConfigError, DataError
from simtrain.evaluation.base_metric import BaseMetric


class Evaluator:
    """Feeds metrics with the results of a loop, and measures them all at its end.

    Args:
        metrics: A :class:`BaseMetric`, a torchmetrics ``Metric`` (its ``update`` is given embeddings and targets), the
            config of a registered one (``{"type": "SetRetrieval", "k": [1]}``), a sequence of these, or a mapping from
            names to these. The figures of named metrics are called ``<name>/<figure>``; that of a torchmetrics metric
            by the name, or else by its class. A torchmetrics metric is copied; a BaseMetric collects what it is fed.

    Attributes:
        metrics: The metrics.
        state: What a runner tells of itself; see :meth:`setup_state`.

    Raises:
        ConfigError: A metric is of another kind, or its config is wrong.

    Example:
        >>> import torch
        >>> evaluator = Evaluator({"type": "SetRetrieval", "k": [1], "names": ["recall@1"]})
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> for first in (0, 2):
        ...     part = slice(first, first + 2)
        ...     targets = {"groups": torch.tensor([5, 5, 6, 6])[part]}
        ...     evaluator.process(data_samples={"embeddings": embeddings[part], "targets": targets})
        >>> evaluator.evaluate(size=4)
        {'recall@1': 1.0}
    """

    def __init__(self, metrics: Any) -> None:
        named = _metrics(metrics)
        self.metrics: list[BaseMetric] = [metric for _, metric in named]
        self._names = [name for name, _ in named]
        self.state: Any = None
        self._dataset_meta: Mapping[str, Any] | None = None

    def setup_state(self, state: Any) -> None:
        """Take what a runner tells of the run: epoch, step, device."""
        self.state = state
        for metric in self.metrics:
            metric.state = state

    @property
    def dataset_meta(self) -> Mapping[str, Any] | None:
        """What is known of the data set as a whole, for metrics that ask for it."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, meta: Mapping[str, Any] | None) -> None:
        self._dataset_meta = meta
        for metric in self.metrics:
            metric.dataset_meta = meta

    def process(self, data_samples: Any, data_batch: Any = None) -> None:
        """Hand a batch to every metric.

        Args:
            data_samples: What the model's step returned: a dict, or a list of results.
            data_batch: What the loader gave.
        """
        for metric in self.metrics:
            metric.process(data_batch=data_batch, data_samples=data_samples)

    def evaluate(self, size: int) -> dict[str, float]:
        """Measure all that was processed since the last evaluation.

        Args:
            size: Samples in the data set; 0 where it is not known.

        Returns:
            Name → figure; of several processes, the same in all.

        Raises:
            ConfigError: Two metrics give a figure of one name.
            DataError: A metric has nothing to measure.
        """
        figures: dict[str, float] = {}
        for prefix, metric in zip(self._names, self.metrics, strict=True):
            for figure, value in metric.evaluate(size).items():
                name = figure if prefix is None else f"{prefix}/{figure}"
                if name in figures:
                    raise ConfigError(
                        f"two metrics give a figure called {name!r}; pass the metrics as a mapping from names to them"
                    )
                figures[name] = value
        return figures

    def offline_evaluate(
        self, data_samples: Iterable[Any], data: Iterable[Any] | None = None, chunk_size: int = 1
    ) -> dict[str, float]:
        """Measure results that were saved before, without a model.

        Args:
            data_samples: Results: one entry a sample in lists of ``chunk_size``; with a chunk size of 1, each entry
                is handed over as it is (a dict of a whole batch, say).
            data: What belongs to them of the data set, one entry each; None where the metrics do not ask for it.
            chunk_size: Entries to hand over at once.

        Raises:
            ConfigError: ``chunk_size`` is not positive.
            DataError: There are not as many data as results.
        """
        if chunk_size < 1:
            raise ConfigError(f"chunk_size is a positive integer, got {chunk_size}")
        self.reset()
        samples, entries, size = iter(data_samples), None if data is None else iter(data), 0
        while chunk := list(islice(samples, chunk_size)):
            batch = None if entries is None else list(islice(entries, chunk_size))
            if batch is not None and len(batch) != len(chunk):
                raise DataError(f"there are more results than data: {size + len(batch)} of the latter; give one each")
            size += len(chunk)
            if chunk_size == 1:
                self.process(chunk[0], None if batch is None else batch[0])
            else:
                self.process(chunk, batch)
        if entries is not None and next(entries, None) is not None:
            raise DataError(f"there are more data than results: {size} of the latter; give one each")
        return self.evaluate(size)

    def reset(self) -> None:
        """Forget what was processed since the last evaluation."""
        for metric in self.metrics:
            metric.reset()


class UpdatedMetric(BaseMetric):
    """A torchmetrics metric as one over a data set: updated by each batch, computed at the end.

    Args:
        metric: The metric; its ``update`` takes ``(embeddings, **targets)``.
        name: What its figure is called; default: the metric's class.
    """

    def __init__(self, metric: Any, name: str | None = None) -> None:
        super().__init__()
        self.metric, self.name = copy.deepcopy(metric), name or type(metric).__name__
        self.metric.reset()

    def process(self, data_batch: Any, data_samples: Any) -> None:
        """Update the metric with the embeddings and targets of a batch."""
        embeddings, targets = embeddings_of(data_samples, self.name)
        self.metric.to(embeddings.device)
        self.metric.update(embeddings.detach(), **{name: value for name, value in targets.items() if name != "items"})

    def evaluate(self, size: int) -> dict[str, float]:
        """Compute the metric, and reset it."""
        value = self.metric.compute()
        self.metric.reset()
        return {self.name: float(value)}

    def reset(self) -> None:
        """Reset the metric."""
        super().reset()
        self.metric.reset()


def embeddings_of(data_samples: Any, name: str) -> tuple[Any, Mapping[str, Any]]:
    """Embeddings and targets out of what a step returned.

    Raises:
        DataError: They are not there.
    """
    if not isinstance(data_samples, Mapping) or not {"embeddings", "targets"} <= data_samples.keys():
        got = f"the keys {sorted(data_samples)}" if isinstance(data_samples, Mapping) else type(data_samples).__name__
        raise DataError(
            f"{name} measures dicts with 'embeddings' and 'targets', as a TrainableModel's steps give; got {got}"
        )
    return data_samples["embeddings"], data_samples["targets"]


def _metrics(given: Any) -> list[tuple[str | None, BaseMetric]]:
    """Metrics, each with what is put before its figures' names."""
    if isinstance(given, Mapping) and "type" not in given:
        return [_metric(metric, str(name)) for name, metric in given.items()]
    if isinstance(given, Sequence) and not isinstance(given, str):
        return [_metric(metric) for metric in given]
    return [_metric(given)]


def _metric(given: Any, name: str | None = None) -> tuple[str | None, BaseMetric]:
    if isinstance(given, Mapping):
        given = registry.metrics.build(given)
    if isinstance(given, BaseMetric):
        return name, given
    if all(callable(getattr(given, word, None)) for word in ("update", "compute", "reset")):
        return None, UpdatedMetric(given, name)
    if hasattr(given, "evaluate_model"):
        raise ConfigError(
            f"{type(given).__name__} measures a model on data of its own, and an Evaluator is fed batches: pass it as "
            "TrainableModel(evaluators=…)"
        )
    raise ConfigError(
        f"an Evaluator takes BaseMetrics, torchmetrics Metrics and configs {{'type': NAME, ...}} of them, got "
        f"{type(given).__name__}"
    )
