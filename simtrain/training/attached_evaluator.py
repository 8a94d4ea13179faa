"""Evaluators that measure a whole data set at the end of an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simtrain import registry
from simtrain.errors import ConfigError, nearest
from simtrain.training.stages import TrainStage

#: Where an evaluator is at work if nothing else is said. A pass over the training set costs time of its own.
STAGES = (TrainStage.VALIDATION, TrainStage.TEST)


class AttachedEvaluator:
    """An evaluator with the stages that it measures and its name in the log.

    Its figures are logged as ``<figure>_<stage>``, or ``<name>_<figure>_<stage>`` where it has a name; of several
    loaders with ``/dataloader_idx_<i>`` at the end. They are there when callbacks look at the end of the epoch: a
    ``ModelCheckpoint`` or ``EarlyStopping`` can monitor them.

    Args:
        evaluator: An object with ``process(data_samples=, data_batch=)`` and ``evaluate(size)``, such as a
            :class:`simtrain.Evaluator` or one of its metrics. Each stage has a copy. Or one with data of its own and
            ``evaluate_model(model)``, such as :class:`simtrain.evaluation.HeldOutRetrieval`: it measures the model at
            each validation, or, where there is no validation loader, at the end of each training epoch.
        name: Name in the log; None for none.
        stages: ``"train"``, ``"validation"``, ``"test"``. For ``"train"`` the training set is embedded anew, in eval
            mode, at the end of each epoch; figures of other stages come from the batches as they pass. Where weights
            are averaged (``training.ema``), all stages measure the averaged ones, which are what is saved; losses and
            metrics of training batches are of the weights that are trained.
        **log_options: Options of ``LightningModule.log``: ``prog_bar``, ``logger``.

    Raises:
        ConfigError: The evaluator lacks a method, or a stage is unknown.

    Example:
        >>> class Count:
        ...     def process(self, data_samples, data_batch): ...
        ...     def evaluate(self, size): return {"size": size}
        >>> AttachedEvaluator(Count(), name="items").log_name("size", TrainStage.TEST)
        'items_size_test'
    """

    def __init__(
        self,
        evaluator: Any,
        name: str | None = None,
        stages: str | Sequence[str] = STAGES,
        **log_options: Any,
    ) -> None:
        self.measures_model = callable(getattr(evaluator, "evaluate_model", None))
        for word in () if self.measures_model else ("process", "evaluate"):
            if not callable(getattr(evaluator, word, None)):
                raise ConfigError(
                    f"an evaluator has the methods process(data_samples, data_batch) and evaluate(size), or "
                    f"evaluate_model(model), got {type(evaluator).__name__}"
                )
        self.evaluator, self.name, self.log_options = evaluator, name, log_options
        self.stages = tuple(_stage(word) for word in ([stages] if isinstance(stages, str) else stages))

    def log_name(self, figure: str, stage: TrainStage) -> str:
        """Name under which a figure of a stage is logged."""
        return f"{self.name}_{figure}_{stage}" if self.name else f"{figure}_{stage}"

    @classmethod
    def from_config(cls, name: str | None, config: Mapping[str, Any]) -> AttachedEvaluator:
        """From ``{"type": NAME, "stages": [...], "prog_bar": ..., ...}``; other words are the metric's arguments.

        Raises:
            ConfigError: A word or the type is unknown.
        """
        words = dict(config)
        own = {word: words.pop(word) for word in ("stages", "prog_bar", "logger") if word in words}
        return cls(registry.metrics.build(words), name, **own)


def attached_evaluators(given: Any) -> list[AttachedEvaluator]:
    """Evaluators in any accepted form: one, a sequence, a mapping from names, or configs of them.

    Raises:
        ConfigError: One is no evaluator, or its config is wrong.
    """
    if isinstance(given, Mapping) and "type" not in given:
        return [_attached(one, str(name)) for name, one in given.items()]
    if isinstance(given, Sequence) and not isinstance(given, str):
        return [_attached(one) for one in given]
    return [_attached(given)]


def _attached(given: Any, name: str | None = None) -> AttachedEvaluator:
    if isinstance(given, AttachedEvaluator):
        own = given.name or name
        return AttachedEvaluator(given.evaluator, own, [str(stage) for stage in given.stages], **given.log_options)
    if isinstance(given, Mapping):
        return AttachedEvaluator.from_config(name, given)
    return AttachedEvaluator(given, name)


def _stage(word: str) -> TrainStage:
    known = [stage.value for stage in TrainStage]
    if word not in known:
        raise ConfigError(f"unknown stage {word!r} of an evaluator; {nearest(str(word), known)}")
    return TrainStage(word)
