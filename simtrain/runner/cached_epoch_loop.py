"""Lightning's loop over the batches of an epoch, with lean steps where nothing else is to be done."""

from __future__ import annotations

import logging
from typing import Any

import lightning
from lightning.pytorch.loops.fetchers import _PrefetchDataFetcher

from simtrain.runner.deferred_figures import DeferredFigures
from simtrain.runner.due_evaluations import due_of
from simtrain.runner.lean_step import LeanStep, obstacle
from simtrain.runner.resumable_epoch_loop import ResumableEpochLoop

logger = logging.getLogger("simtrain")

#: What is used of Lightning's private parts; where one is missing the loop is left as it is.
PARTS = {
    "epoch loop": (
        *("batch_progress", "scheduler_progress", "automatic_optimization", "_results", "_batches_that_stepped"),
        *("advance", "on_advance_end", "on_run_start", "update_lr_schedulers", "restarting"),
    ),
    "logger connector": ("metrics", "on_batch_end", "update_train_step_metrics", "_first_loop_iter"),
    "results": ("batch", "batch_size", "dataloader_idx", "update_metrics"),
}


class CachedEpochLoop(ResumableEpochLoop):
    """The loop over the batches of an epoch, of which most are trained on by a :class:`LeanStep`.

    Lightning's own code has the first and the last batch of an epoch, those before a validation or a test or after a
    resumption, and the last optimizer step: all that is to be done at such places is its own.
    """

    def __init__(self, trainer: lightning.Trainer) -> None:
        replaced = trainer.fit_loop.epoch_loop
        super().__init__(trainer, replaced.min_steps, replaced.max_steps)
        self._lean: LeanStep | None = None

    def on_run_start(self, data_fetcher: Any) -> None:
        """Look up what a step of this epoch has to do."""
        super().on_run_start(data_fetcher)
        reason = obstacle(self.trainer)
        if type(data_fetcher) is not _PrefetchDataFetcher or data_fetcher.length is None:
            reason = reason or "the number of batches is not known"
        self._lean = LeanStep(self.trainer) if reason is None else None
        if reason is not None:
            logger.debug("CachedTrainLoop: Lightning's own steps in this epoch: %s", reason)

    def advance(self, data_fetcher: Any) -> None:
        """Train on one batch, or on all up to the next place where there is something else to do."""
        count = self._n_plain(data_fetcher)
        if count > 0 and self._lean is not None:
            self._lean.run(data_fetcher, count)
        else:
            super().advance(data_fetcher)

    def _n_plain(self, fetcher: Any) -> int:
        done = self.batch_progress.current.ready
        if self._lean is None or self.restarting or done == 0 or self.trainer.should_stop:
            return 0
        count = min(self.trainer.num_training_batches - done, fetcher.length - fetcher.fetched) - 1
        if self.max_steps != -1:
            count = min(count, self.max_steps - self.global_step - 1)
        return int(min(count, self._n_before_evaluation(), self._n_before_place()))

    def _n_before_evaluation(self) -> float | int:
        due, done = due_of(self.trainer), self.batch_progress.total.ready
        return 0 if due is None else due.next_iteration(done) - done - 1


def install(trainer: lightning.Trainer) -> str | None:
    """Give a trainer the loop, where its parts are those of the versions of Lightning that are known.

    Returns:
        What is missing; None where the loop was put in.
    """
    parts = {
        "epoch loop": trainer.fit_loop.epoch_loop,
        "logger connector": trainer._logger_connector,
        "results": trainer.fit_loop.epoch_loop._results,
    }
    for name, words in PARTS.items():
        # Of the class where it is a property: some cannot be read yet.
        missing = [word for word in words if not hasattr(type(parts[name]), word) and not hasattr(parts[name], word)]
        if missing:
            return f"the {name} of lightning {lightning.__version__} has no {', '.join(missing)}"
    trainer.fit_loop.epoch_loop = CachedEpochLoop(trainer)
    trainer._logger_connector = DeferredFigures(trainer)
    return None
