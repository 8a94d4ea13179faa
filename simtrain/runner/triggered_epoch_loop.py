"""Lightning's loop over the batches of an epoch, with validation and tests when a runner's config says."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from simtrain.runner.due_evaluations import due_of
from simtrain.runner.triggers import Moment


class TriggeredEpochLoop(_TrainingEpochLoop):
    """Asks a trainer's :class:`DueEvaluations` after each batch; without one it is Lightning's loop.

    Nothing is kept but Lightning's own counts, so that a resumed run is due at the same places.
    """

    def on_advance_end(self, data_fetcher: Any) -> None:
        """As Lightning does, validation included; then what else is due."""
        super().on_advance_end(data_fetcher)
        due = due_of(self.trainer)
        for triggers, run in due.own if due is not None else ():
            if triggers.is_due(self._now()):
                due.run_own(run, self.trainer)  # type: ignore[union-attr]

    def _should_check_val_fx(self, data_fetcher: Any) -> bool:
        due = due_of(self.trainer)
        if due is None:
            return bool(super()._should_check_val_fx(data_fetcher))
        return bool(self.trainer.enable_validation) and due.valid.is_due(self._now())

    def _now(self) -> Moment:
        trainer, progress = self.trainer, self.batch_progress
        epoch = trainer.current_epoch + 1
        ends_epoch = progress.is_last_batch or self._num_ready_batches_reached()
        is_told_to_stop = trainer.should_stop and trainer.fit_loop._can_stop_early
        has_all_steps = self.max_steps != -1 and self.global_step >= self.max_steps
        ends = (ends_epoch and epoch == trainer.max_epochs) or is_told_to_stop or has_all_steps
        return Moment(epoch, progress.total.ready, ends_epoch, ends)
