"""Figures on their way to the loggers, looked at once a step and written to the disk about once a second."""

from __future__ import annotations

import time
from typing import Any

import lightning
from lightning.fabric.utilities.apply_func import convert_tensors_to_scalars
from lightning.pytorch.trainer.connectors.logger_connector.logger_connector import _LoggerConnector

#: Seconds that the figures of a step may wait to be written to a file.
PATIENCE = 1.0


class LoggedFigures(_LoggerConnector):
    """The trainer's logger connector, which spares a logged step what Lightning does twice, or far too often.

    Lightning gathers the figures of a step once for callbacks and once more for loggers, and has each logger open and
    write its file. Here loggers get the figures of each step as well, but save them about once a second; figures of
    epochs and validations are saved at once, with all that wait.

    Args:
        trainer: The trainer, whose connector this one replaces and goes on from.
    """

    def __init__(self, trainer: lightning.Trainer) -> None:
        self.__dict__.update(trainer._logger_connector.__dict__)
        self._saved_at = time.monotonic()
        self._of_batch: tuple[int, Any] | None = None

    def on_batch_end(self) -> None:
        """As Lightning does; the figures are kept for the loggers."""
        metrics = self.metrics
        self._progress_bar_metrics.update(metrics["pbar"])
        self._callback_metrics.update(metrics["callback"])
        self._logged_metrics.update(metrics["log"])
        results: Any = self.trainer._results
        results.batch = results.batch_size = None
        self._of_batch = self._n_batches(), metrics["log"]

    def update_train_step_metrics(self) -> None:
        """Give the figures of a step to the loggers, if it has ended a window of accumulation."""
        trainer: Any = self.trainer
        if not trainer.loggers or not (self.should_update_logs or trainer.fast_dev_run):
            return
        if trainer.fit_loop._should_accumulate() and trainer.lightning_module.automatic_optimization:
            return
        known, self._of_batch = self._of_batch, None
        # What was gathered at the end of another batch is out of date.
        is_fresh = known is not None and known[0] == self._n_batches()
        figures = known[1] if known is not None and is_fresh else self.metrics["log"]
        if time.monotonic() - self._saved_at >= PATIENCE:
            self.log_metrics(figures)
        elif figures:
            self._log_unsaved(figures)

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """As Lightning does, which saves all that has waited."""
        super().log_metrics(metrics, step)
        if metrics:
            self._saved_at = time.monotonic()

    def _log_unsaved(self, metrics: dict[str, Any]) -> None:
        self._logged_metrics.update(metrics)
        scalars = convert_tensors_to_scalars(metrics)
        given = scalars.pop("step", None)  # a figure of this name is the step, for Lightning
        if given is None:
            scalars.setdefault("epoch", self.trainer.current_epoch)
        step = self.trainer.fit_loop.epoch_loop._batches_that_stepped if given is None else int(given)
        for logger in self.trainer.loggers:
            logger.log_metrics(metrics=scalars, step=step)

    def _n_batches(self) -> int:
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.total
        return int(progress.processed)
