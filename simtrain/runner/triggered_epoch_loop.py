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
        self._run_own()

    def _run_own(self) -> None:
        due = due_of(self.trainer)
        wanted = [run for triggers, run in due.own if triggers.is_due(self._now())] if due is not None else []
        # Their figures are logged beside those of the batch, as a validation's are: Lightning has counted on already.
        counted = 0 if self._should_accumulate() else 1
        self._batches_that_stepped -= counted
        for run in wanted:
            due.run_own(run, self.trainer)  # type: ignore[union-attr]
        self._batches_that_stepped += counted

    def _should_check_val_fx(self, data_fetcher: Any) -> bool:
        due = due_of(self.trainer)
        if due is None:
            return bool(super()._should_check_val_fx(data_fetcher))
        # A loop of one's own may have lent its loader to Lightning's, and validates by itself.
        by_trainer = due.validate is not None and self.trainer.enable_validation
        return bool(by_trainer) and due.valid.is_due(self._now())

    def _now(self) -> Moment:
        trainer, progress = self.trainer, self.batch_progress
        epoch = trainer.current_epoch + 1
        ends_epoch = progress.is_last_batch or self._num_ready_batches_reached()
        is_told_to_stop = trainer.should_stop and trainer.fit_loop._can_stop_early
        has_all_steps = self.max_steps != -1 and self.global_step >= self.max_steps
        ends = (ends_epoch and epoch == trainer.max_epochs) or is_told_to_stop or has_all_steps
        return Moment(epoch, progress.total.ready, ends_epoch, ends)
