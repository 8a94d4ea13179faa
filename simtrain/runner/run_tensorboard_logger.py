"""Figures of a run for TensorBoard, which shows each step of a resumed run once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger


class RunTensorBoardLogger(TensorBoardLogger):
    """Lightning's logger for TensorBoard, in a folder of its own.

    Args:
        folder: Where the event files go.

    Attributes:
        has_begun: A training has been logged.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(Path(folder).parent, name=Path(folder).name, version="", default_hp_metric=False)
        self.has_begun = False

    def go_on_at(self, step: int) -> None:
        """Hide what event files that are there say of this step and later ones: it comes again."""
        writer: Any = self.experiment
        before = self._event_files()
        while True:
            # Said at the head of the next file: TensorBoard then drops what it has read of those steps.
            writer.close()
            writer.purge_step = step
            writer._get_file_writer()
            if max(self._event_files()) not in before:
                return
            # TensorBoard reads files by their names: the second, the process and a count, where 10 is before 9.
            time.sleep(1 - time.time() % 1)

    def _event_files(self) -> set[str]:
        return {file.name for file in Path(self.log_dir).glob("*tfevents*")}


class PurgedPoints(Callback):
    """Hides points of steps that a run takes again, or that another run in its folder has taken.

    Args:
        logger: What writes the points.
    """

    def __init__(self, logger: RunTensorBoardLogger) -> None:
        self._logger = logger

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Go on from where the run is; a further training of one runner adds to what is there."""
        if trainer.is_global_zero and (trainer.ckpt_path is not None or not self._logger.has_begun):
            self._logger.go_on_at(trainer.fit_loop.epoch_loop._batches_that_stepped)
        self._logger.has_begun = True
