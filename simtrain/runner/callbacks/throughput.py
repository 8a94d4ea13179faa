"""How fast a training is."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch.callbacks import Callback

from simtrain import registry


@registry.callbacks.register_module()
class Throughput(Callback):
    """Logs batches and samples a second of each epoch: ``train_batches_per_second``, ``train_samples_per_second``.

    Time that validation and tests take does not count. Nothing is done for each batch. Samples are those of all
    processes, where the loader tells its batch size.

    Example:
        >>> Throughput().seconds
        0.0
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._start, self._first, self._pause = 0.0, 0, 0.0

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock."""
        self._start, self._first, self._pause = time.perf_counter(), self._batches(trainer), 0.0

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Stop the clock."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Go on."""
        self._pause += time.perf_counter() - self._paused

    on_test_start, on_test_end = on_validation_start, on_validation_end

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the epoch's figures."""
        self.seconds = time.perf_counter() - self._start - self._pause
        batches = self._batches(trainer) - self._first
        if self.seconds <= 0 or not batches:
            return
        pl_module.log("train_batches_per_second", batches / self.seconds, batch_size=1)
        size = getattr(trainer.train_dataloader, "batch_size", None)
        if size:
            samples = batches * size * trainer.world_size / self.seconds
            pl_module.log("train_samples_per_second", samples, batch_size=1)

    def _batches(self, trainer: Any) -> int:
        return int(trainer.fit_loop.epoch_loop.batch_progress.total.ready)
