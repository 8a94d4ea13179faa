"""Figures of training steps that are handed to Lightning when somebody looks at them."""

from __future__ import annotations

from typing import Any

import lightning
from torch import Tensor

from simtrain.runner.logged_figures import LoggedFigures
from simtrain.training.stages import TrainStage


class DeferredFigures(LoggedFigures):
    """The trainer's logger connector, with figures of the latest step that are not in its results yet.

    Logging a figure costs more than a small step, and of a figure that is logged on each step only the last value can
    be seen: by a logger, a progress bar or a callback. They all look through :attr:`metrics`, so that the figures are
    logged there, as the step would have logged them.

    Args:
        trainer: The trainer, whose connector this one replaces and goes on from.
    """

    def __init__(self, trainer: lightning.Trainer) -> None:
        super().__init__(trainer)
        self._waiting: dict[tuple[str | None, str], tuple[Any, dict[str, Any]]] = {}
        self._step: dict[str, Any] | None = None

    def defer_step(self, results: dict[str, Any]) -> None:
        """What a training step gave, for its figures; the tensors are not to be changed afterwards."""
        if self._step is not None and self._step.keys() != results.keys():
            self._name_figures()  # what only an earlier step had can still be seen
        # Without its graph, which would keep what the step was computed from until the next one.
        self._step = {name: value.detach() if isinstance(value, Tensor) else value for name, value in results.items()}

    def defer(self, name: str, value: Any, **options: Any) -> None:
        """What ``module.log`` is given; the value is not to be changed afterwards."""
        self._waiting[self.trainer.lightning_module._current_fx_name, name] = value, options

    def flush(self) -> None:
        """Log the figures that wait."""
        if self._step is not None:
            self._name_figures()
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, {}
        module, results = self.trainer.lightning_module, self.trainer.fit_loop.epoch_loop._results
        before = module._current_fx_name
        for (hook, name), (value, options) in waiting.items():
            known = results.get(f"{hook}.{name}")
            if known is not None and known.value.device == getattr(value, "device", None):
                results.update_metrics(f"{hook}.{name}", value.squeeze(), options["batch_size"])
                continue
            module._current_fx_name = hook
            module.log(name, value, **options)
        module._current_fx_name = before

    def _name_figures(self) -> None:
        results, self._step = self._step, None
        module: Any = self.trainer.lightning_module
        before, later = module._current_fx_name, module._log_later
        module._current_fx_name, module._log_later = "training_step", self.defer
        module._log_figures(results, None, TrainStage.TRAIN)
        module._current_fx_name, module._log_later = before, later

    @property
    def metrics(self) -> Any:
        """The figures of the step or epoch; those that wait are logged first."""
        self.flush()
        return super().metrics
