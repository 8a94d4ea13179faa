"""Metrics that are computed on the batches of training, validation and testing."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchmetrics import Metric

from simtrain.errors import ConfigError
from simtrain.training.stages import TrainStage


class AttachedMetric(nn.Module):
    """A batch-wise metric with its name in the log.

    It is logged as ``<name>_<stage>``. Each stage has a copy of its own, so that validation in the middle of a
    training epoch does not mix with the training figures; of several validation or test loaders each has one. Of
    several processes every one is given the global batch, without what a distributed sampler repeats: the figures are
    those of one process.

    Args:
        name: Name in the log.
        metric: A torchmetrics metric whose ``update`` takes ``(embeddings, **targets)``, such as
            :class:`simtrain.metrics.RetrievalPrecision`.
        **log_options: Options of ``LightningModule.log``: ``prog_bar``, ``on_step``, ``on_epoch``, ``logger``.

    Raises:
        ConfigError: ``metric`` is no torchmetrics metric.

    Example:
        >>> from simtrain.metrics import RetrievalPrecision
        >>> attached = AttachedMetric("precision@1", RetrievalPrecision(k=1), prog_bar=True)
        >>> attached.log_name(TrainStage.VALIDATION)
        'precision@1_validation'
    """

    def __init__(self, name: str, metric: Metric, **log_options: Any) -> None:
        super().__init__()
        if not isinstance(metric, Metric):
            raise ConfigError(f"the metric {name!r} should be a torchmetrics Metric, got {type(metric).__name__}")
        self.name = name
        self.log_options = log_options
        # Not by the bare stage: "train" is a method of every module.
        self.stages = nn.ModuleDict({f"on_{stage}": metric.clone() for stage in TrainStage})
        for own in self.stages.values():
            own.sync_on_compute = False  # type: ignore[assignment]  # all processes see all batches

    def log_name(self, stage: TrainStage) -> str:
        """Name under which the figure of a stage is logged."""
        return f"{self.name}_{stage.value}"

    def prepare(self, stage: TrainStage, n_loaders: int) -> bool:
        """Make the copies for so many loaders of a stage; whether there were fewer before."""
        missing = [number for number in range(1, n_loaders) if f"on_{stage}_{number}" not in self.stages]
        for number in missing:
            first = self.at(stage)
            self.stages[f"on_{stage}_{number}"] = first.clone()
            self.at(stage, number).reset()
        return bool(missing)

    def at(self, stage: TrainStage, loader: int = 0) -> Metric:
        """The copy of the metric that belongs to a stage, and to one of its loaders."""
        metric = self.stages[f"on_{stage}_{loader}" if loader else f"on_{stage}"]
        assert isinstance(metric, Metric)
        return metric
