"""Tells a trial how training goes, and ends it where the trial is hopeless."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch.callbacks import Callback

from simtrain.errors import ConfigError, nearest


class TrialReporter(Callback):
    """Reports a figure of each validation to one of Optuna's trials.

    Args:
        trial: The trial.
        metric: The figure.

    Attributes:
        value: The figure of the last validation; None before one.
        validations: How many there were.
        pruned: Whether the trial was ended early.
    """

    def __init__(self, trial: Any, metric: str) -> None:
        self._trial, self._metric = trial, metric
        self.value: float | None = None
        self.validations = 0
        self.pruned = False

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Report, and stop the training if the pruner says so, or if the figure is not finite."""
        if trainer.state.fn != "fit":
            return
        figures = trainer.callback_metrics
        if self._metric not in figures:
            raise ConfigError(f"the validation gives no figure {self._metric!r}; {nearest(self._metric, figures)}")
        self.value = float(figures[self._metric])
        self.validations += 1
        if math.isfinite(self.value):
            # Counted from 0, as Optuna does: n_warmup_steps is the number of validations that end nothing.
            self._trial.report(self.value, self.validations - 1)
        if not math.isfinite(self.value) or self._trial.should_prune():
            self.pruned = True
            trainer.should_stop = True
