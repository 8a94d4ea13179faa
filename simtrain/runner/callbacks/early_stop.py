"""Training stops where a figure gets no better any more."""

from __future__ import annotations

import logging
import math
from typing import Any

from lightning.pytorch.callbacks import Callback

from simtrain import registry
from simtrain.errors import ConfigError
from simtrain.runner.monitored_figure import greater_is_better, value_of

logger = logging.getLogger("simtrain")


@registry.callbacks.register_module()
class EarlyStop(Callback):
    """Stops training once a figure has not become better for some validations.

    It looks after each validation, when the figures are fresh; in a training without validation, after each epoch.

    Args:
        monitor: Name of the figure.
        patience: Validations without an improvement that are waited for.
        delta: How much better counts as better.
        greater_is_better: Whether more of the figure is better; None: its name tells (``…loss`` is to be small).

    Attributes:
        best: The best value so far.
        waited: Validations since then.

    Raises:
        ConfigError: A number lies outside its range; in training: the figure is not logged, or is not finite.

    Example:
        >>> EarlyStop("recall@1_validation", patience=3).greater_is_better
        True
    """

    def __init__(
        self,
        monitor: str = "validation_loss",
        patience: int = 3,
        delta: float | int = 0.0,
        greater_is_better: bool | None = None,
    ) -> None:
        if not isinstance(patience, int) or isinstance(patience, bool) or patience < 1:
            raise ConfigError(f"patience of early stopping should be at least 1, got {patience!r}")
        if not 0 <= delta < math.inf:
            raise ConfigError(f"delta of early stopping should be a number from 0 on, got {delta!r}")
        self.monitor, self.patience, self.delta = monitor, patience, delta
        self.greater_is_better = _inferred(monitor) if greater_is_better is None else greater_is_better
        self.best: float | None = None
        self.waited = 0

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Look at the figure, and stop where it is time."""
        if trainer.state.fn == "fit":
            self._look(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """The same, where there is no validation."""
        if not trainer.enable_validation:
            self._look(trainer)

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.best, self.waited = state_dict["best"], state_dict["waited"]

    def _look(self, trainer: Any) -> None:
        value = value_of(self.monitor, trainer.callback_metrics, "early stopping")
        if self._is_better(value):
            self.best, self.waited = value, 0
            return
        self.waited += 1
        stops = self.waited >= self.patience
        if stops:
            best = "it was never a number" if self.best is None else f"its best value is {self.best:.6g}"
            logger.info("training stops: %s is no better for %d validations; %s", self.monitor, self.waited, best)
        # Processes may see figures that differ in the last digit; they are to stop together.
        trainer.should_stop = trainer.should_stop or trainer.strategy.reduce_boolean_decision(stops, all=False)

    def _is_better(self, value: float) -> bool:
        if math.isnan(value):
            return False
        if self.best is None:
            return True
        return value > self.best + self.delta if self.greater_is_better else value < self.best - self.delta


_inferred = greater_is_better
