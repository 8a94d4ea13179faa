"""Epochs of a similarity model that end with the figures of its evaluators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng

from simtrain.cache import CachedModel
from simtrain.errors import ContractError
from simtrain.models.eval_mode import eval_mode
from simtrain.training.attached_metric import AttachedMetric
from simtrain.training.averaged_weights import averaged_weights
from simtrain.training.epoch_evaluation import EpochEvaluation, in_order
from simtrain.training.similarity_steps import SimilaritySteps
from simtrain.training.stages import TrainStage

VALIDATION, TEST, TRAIN = TrainStage.VALIDATION, TrainStage.TEST, TrainStage.TRAIN


class EvaluatedEpochs(SimilaritySteps):
    """Feeds the evaluators of :class:`~simtrain.TrainableModel`, and logs their figures."""

    _evaluation: EpochEvaluation
    _cached: CachedModel

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """As in the base class; the results go to the evaluators too."""
        self._loader_number = dataloader_idx
        results = super().validation_step(batch, batch_idx, dataloader_idx)
        self._evaluation.process(VALIDATION, results, batch, dataloader_idx)
        return results

    def on_test_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Note which loader the batch is from."""
        self._loader_number = dataloader_idx

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """As in the base class; the results go to the evaluators too."""
        super().on_test_batch_end(outputs, batch, batch_idx, dataloader_idx)
        self._evaluation.process(TEST, outputs, batch, dataloader_idx)

    def on_validation_start(self) -> None:
        """Begin an epoch of the validation metrics and evaluators."""
        self._start_stage(VALIDATION, self.trainer.val_dataloaders)

    def on_test_start(self) -> None:
        """Begin an epoch of the test metrics and evaluators."""
        self._start_stage(TEST, self.trainer.test_dataloaders)

    def on_validation_epoch_start(self) -> None:
        """Measure test sets of the evaluators' own, now that averaged weights, if any, are in their place."""
        self._measure(VALIDATION)

    def on_test_epoch_start(self) -> None:
        """Measure test sets of the evaluators' own."""
        self._measure(TEST)

    def on_validation_epoch_end(self) -> None:
        """Log the figures of the validation sets, before callbacks look for what they monitor."""
        self._log_evaluated(VALIDATION, self.trainer.val_dataloaders, self.trainer.limit_val_batches)

    def on_test_epoch_end(self) -> None:
        """Log the figures of the test sets."""
        self._log_evaluated(TEST, self.trainer.test_dataloaders, self.trainer.limit_test_batches)

    def on_train_epoch_end(self) -> None:
        """Embed the training set, where an evaluator asks for it, with averaged weights, if any; log its figures."""
        super().on_train_epoch_end()
        # Without a validation loader there is no other moment for what needs none.
        stages = (TRAIN,) if self.trainer.enable_validation else (TRAIN, VALIDATION)
        measured = [stage for stage in stages if self._evaluation.measures_model(stage)]
        if not measured and not self._evaluation.at(TRAIN):
            return
        with averaged_weights(self.trainer, self):
            for stage in measured:
                self._measure(stage)
                self._log_evaluated(stage, [], 1.0)
            if self._evaluation.at(TRAIN):
                self._evaluate_training_set(self.trainer.train_dataloader)

    def _evaluate_training_set(self, loader: Any) -> None:
        self._evaluation.start(TRAIN, loader)
        with self._as_it_is():
            for batch in in_order(loader):
                embeddings, targets = self._embed_batch(batch)
                self._evaluation.process(TRAIN, {"embeddings": embeddings, "targets": targets}, batch)
        self._log_evaluated(TRAIN, loader, 1.0)

    def _measure(self, stage: TrainStage) -> None:
        if self._evaluation.measures_model(stage) and not self.trainer.sanity_checking:
            with self._as_it_is():
                self._evaluation.measure(stage, self._cached)

    @contextmanager
    def _as_it_is(self) -> Iterator[None]:
        """The model in eval mode, with the trainer's precision; training goes on as if nothing had been measured."""
        with isolate_rng(), eval_mode(self), torch.no_grad(), self.trainer.precision_plugin.forward_context():
            yield

    def _start_stage(self, stage: TrainStage, loaders: Any) -> None:
        self._evaluation.start(stage, loaders)
        n_loaders = len(loaders) if isinstance(loaders, (list, tuple)) else 1
        added = [one.prepare(stage, n_loaders) for one in self._metrics if isinstance(one, AttachedMetric)]
        if any(added):
            self._metric_attributes = None  # Lightning's own list of the metrics, made once
        self._repeats.clear()
        self._loader_number = 0

    def _log_evaluated(self, stage: TrainStage, loaders: Any, limit: float | int | None) -> None:
        batchwise = {one.log_name(stage) for one in self._metrics if isinstance(one, AttachedMetric)}
        is_whole = limit in (None, 1.0) and not self.trainer.sanity_checking
        for name, value, options in self._evaluation.figures(stage, loaders, is_whole):
            if name in batchwise:
                raise ContractError(
                    f"an evaluator and a metric of {type(self).__name__} are both logged as {name!r}; give one another "
                    f"name: TrainableModel(evaluators={{'name': ...}})"
                )
            # Named by loader already.
            self.log(name, value, batch_size=1, add_dataloader_idx=False, **options)
