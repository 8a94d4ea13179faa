"""Lightning's loop over the batches of an epoch, which can be left and entered between any two of them."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import lightning
from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
from lightning.pytorch.trainer.states import RunningStage, TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from simtrain.runner.triggered_epoch_loop import TriggeredEpochLoop


class WholeEvaluation(_EvaluationLoop):
    """Lightning's loop, which SIGTERM does not break off: in the middle of an evaluation a run cannot be saved."""

    def _evaluation_step(self, *args: Any, **kwargs: Any) -> None:
        # Raised after all that belongs to the batch is done; it comes again where the evaluation is over.
        with suppress(SIGTERMException):
            super()._evaluation_step(*args, **kwargs)


class ResumableEpochLoop(TriggeredEpochLoop):
    """The epoch loop of a :class:`~simtrain.runner.resumable_fit_loop.ResumableFitLoop`.

    A batch is over when its validation is, and its figures are logged: only then can the run be saved exactly. The last
    batch of an epoch is over with the epoch.
    """

    def __init__(self, trainer: lightning.Trainer, min_steps: int | None, max_steps: int) -> None:
        super().__init__(trainer, min_steps, max_steps)
        self.val_loop = WholeEvaluation(
            trainer, TrainerFn.FITTING, RunningStage.VALIDATING, verbose=False, inference_mode=False
        )

    def reset(self) -> None:
        """As Lightning does; from a place between two batches the counters go on as they are."""
        if self.trainer.fit_loop.resumed != "batch":
            super().reset()

    def on_run_start(self, data_fetcher: Any) -> None:
        """As Lightning does; then the loader is brought to where it was."""
        fit_loop = self.trainer.fit_loop
        resumed, fit_loop.resumed = fit_loop.resumed, None
        if fit_loop.forgets_order and (resumed == "epoch" or fit_loop.epoch_progress.current.processed):
            fit_loop.note_order("iter")
        if resumed == "epoch" and fit_loop.forgets_order:
            # The order that was drawn while everything was set up came too early.
            iter(data_fetcher)
        super().on_run_start(data_fetcher)
        if resumed != "batch":
            return
        self._restarting = self.val_loop._restarting = False
        if fit_loop.forgets_order:
            fit_loop.read_again(data_fetcher, self.batch_progress.current.completed)

    def advance(self, data_fetcher: Any) -> None:
        """Train on one batch, as Lightning does."""
        fit_loop = self.trainer.fit_loop
        if self.batch_progress.current.ready == 0 and fit_loop.forgets_order:
            fit_loop.note_order("fetch")
        try:
            super().advance(data_fetcher)
        except SIGTERMException:
            # Of several processes, all learn of the signal before the next batch.
            if self.batch_progress.current.ready:
                self._reach_place()
            raise

    def on_advance_end(self, data_fetcher: Any) -> None:
        """Validate and test where it is time; then the run is between two batches."""
        try:
            super().on_advance_end(data_fetcher)
        except SIGTERMException:
            # Raised where validation is over, but not what else is due, and the batch ends with that.
            self._run_own()
            self._reach_place()
            raise
        self._reach_place()

    def _reach_place(self) -> None:
        if not self._is_training_done:
            self.trainer.fit_loop.reach("batch")

    def _n_before_place(self) -> float | int:
        """How many batches may be trained on before a callback wants to be at a place."""
        waiting = [callback for callback in self.trainer.callbacks if hasattr(callback, "on_place")]
        counts = [
            callback.n_before_place(self.trainer) if hasattr(callback, "n_before_place") else 1 for callback in waiting
        ]
        return min(counts, default=math.inf)
