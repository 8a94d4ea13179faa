"""Validation and tests in the middle of a training: which are due, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig

from simtrain.models.eval_mode import eval_mode
from simtrain.runner.triggers import StageTriggers, Trigger

Run = Callable[[], Any]


class DueEvaluations(Callback):
    """Travels with a trainer, so that its epoch loop knows what is due; see :class:`TriggeredEpochLoop`.

    Args:
        valid: When validation is due.
        validate: Validates, where training ends without a validation that nobody could foresee to be its last chance;
            None where there is no validation.
        own: What else is run in a training: when, and what. Figures that come back can be monitored.

    Attributes:
        validated_at: Batch after which the latest validation was, counted over all epochs.
    """

    def __init__(
        self, valid: StageTriggers, validate: Run | None = None, own: list[tuple[StageTriggers, Run]] | None = None
    ) -> None:
        self.valid, self.validate, self.own = valid, validate, own or []
        self.validated_at = 0

    def next_iteration(self, iteration: int) -> float | int:
        """The first batch after this one at which something is due by its number."""
        stages = [self.valid, *(triggers for triggers, _ in self.own)]
        return min(triggers.iterations.next_after(iteration) for triggers in stages)

    def run_own(self, run: Run, trainer: lightning.Trainer) -> None:
        """Run one of :attr:`own` now."""
        with eval_mode(trainer.lightning_module), torch.no_grad():
            figures = run()
        shown = {name: torch.as_tensor(value) for name, value in (figures or {}).items()}
        trainer.callback_metrics.update(shown)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Note where it was."""
        if trainer.state.fn == "fit":
            self.validated_at = trainer.fit_loop.epoch_loop.batch_progress.total.ready

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Validate the last weights, where training was told to stop at the end of an epoch without validation."""
        done = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        if self.validate is not None and self.valid.at_end and self.validated_at != done:
            self.validate()

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"validated_at": self.validated_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.validated_at = state_dict["validated_at"]


def due_of(trainer: lightning.Trainer) -> DueEvaluations | None:
    """What travels with a trainer; None for a trainer of somebody else."""
    found = (callback for callback in trainer.callbacks if isinstance(callback, DueEvaluations))  # type: ignore[attr-defined]
    return next(found, None)


def triggers_of(training: DictConfig, stage: str) -> StageTriggers:
    """The triggers of ``"valid"`` or ``"test"`` in a config's section ``training``.

    Example:
        >>> from simtrain import load_cfg
        >>> triggers_of(load_cfg(None).training, "test").is_ever_due
        False
    """
    epochs = Trigger(training[f"{stage}_begin_epoch"], training[f"{stage}_interval_epoch"])
    begin, interval = training[f"{stage}_begin_iter"], training[f"{stage}_interval_iter"]
    return StageTriggers(epochs, Trigger(begin or interval or 1, interval), at_end=stage == "valid")
