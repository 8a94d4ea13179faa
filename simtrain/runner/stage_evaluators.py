"""The evaluators that a runner was given, at work under ``lightning.Trainer``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.seed import isolate_rng

from simtrain.errors import ConfigError
from simtrain.evaluation import Evaluator
from simtrain.models.eval_mode import eval_mode
from simtrain.training.epoch_evaluation import SAME_ITEMS, in_order
from simtrain.training.equal_items import equal_items
from simtrain.training.stages import TrainStage
from simtrain.training.step_contract import call_step

TRAIN, VALIDATION, TEST = TrainStage.TRAIN, TrainStage.VALIDATION, TrainStage.TEST


def as_evaluator(given: Any, word: str) -> Any:
    """An evaluator as it is; metrics, or configs of them, in an :class:`simtrain.Evaluator`.

    Args:
        given: What was passed to the runner.
        word: Name of its argument.

    Raises:
        ConfigError: It is neither.

    Example:
        >>> type(as_evaluator({"type": "SetRetrieval"}, "valid_evaluator")).__name__
        'Evaluator'
    """
    if all(callable(getattr(given, method, None)) for method in ("process", "evaluate")):
        return given
    try:
        return Evaluator(given)
    except ConfigError as error:
        raise ConfigError(f"{word}: {error}") from error


class StageEvaluators(Callback):
    """Hands each batch's results to the evaluator of its stage, and logs the figures at the end.

    They are logged as ``<figure>_<stage>``, before callbacks look for what they monitor. The one of training measures
    the training set at the end of each epoch, every sample once and in eval mode, by the model's ``valid_step``.

    Args:
        evaluators: Stage → evaluator.

    Attributes:
        figures: Stage → the evaluator's latest figures, under its own names.
    """

    def __init__(self, evaluators: Mapping[TrainStage, Any]) -> None:
        self.evaluators = dict(evaluators)
        self.figures: dict[TrainStage, dict[str, float]] = {}

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Tell the evaluator of the data set."""
        self._start(VALIDATION, trainer.val_dataloaders)

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Tell the evaluator of the data set."""
        self._start(TEST, trainer.test_dataloaders)

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Hand over a batch."""
        self._process(VALIDATION, outputs, batch)

    def on_test_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Hand over a batch."""
        self._process(TEST, outputs, batch)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure."""
        self._measure(VALIDATION, pl_module, trainer.val_dataloaders)

    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure."""
        self._measure(TEST, pl_module, trainer.test_dataloaders)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Go through the training set, and measure."""
        if TRAIN not in self.evaluators:
            return
        loader = trainer.train_dataloader
        self._start(TRAIN, loader)
        with isolate_rng(), eval_mode(pl_module), torch.no_grad(), trainer.precision_plugin.forward_context():
            for number, batch in enumerate(in_order(loader)):
                moved = trainer.strategy.batch_to_device(batch)
                self._process(TRAIN, _results(pl_module, moved, number), moved)
        self._measure(TRAIN, pl_module, loader)

    def _start(self, stage: TrainStage, loader: Any) -> None:
        evaluator = self.evaluators.get(stage)
        if evaluator is None:
            return
        if hasattr(evaluator, "reset"):
            evaluator.reset()  # of a run that broke off
        if hasattr(evaluator, "dataset_meta"):
            evaluator.dataset_meta = {SAME_ITEMS: equal_items(loader)}

    def _process(self, stage: TrainStage, results: Any, batch: Any) -> None:
        if stage in self.evaluators:
            self.evaluators[stage].process(data_samples=results, data_batch=batch)

    def _measure(self, stage: TrainStage, module: Any, loader: Any) -> None:
        evaluator = self.evaluators.get(stage)
        if evaluator is None:
            return
        dataset: Any = getattr(loader, "dataset", None)
        figures = evaluator.evaluate(len(dataset) if hasattr(dataset, "__len__") else 0)
        self.figures[stage] = {name: float(value) for name, value in figures.items()}
        for name, value in self.figures[stage].items():
            module.log(f"{name}_{stage}", value, batch_size=1)


def _results(module: Any, batch: Any, number: int) -> Any:
    if hasattr(module, "_embed_batch"):  # a similarity model, whose valid_step would log its metrics as validation's
        embeddings, targets = module._embed_batch(batch)
        return {"embeddings": embeddings, "targets": targets}
    return call_step(module.valid_step, batch, batch_idx=number, dataloader_idx=0)
