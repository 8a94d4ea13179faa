"""Figures of a run for Weights & Biases, where a resumed run is the one that it goes on from."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger

from simtrain.errors import ConfigError
from simtrain.evaluation.text_files import draft

#: File of a run's folder that keeps what W&B calls the run.
ID_FILE = "wandb-id.txt"


class RunWandbLogger(WandbLogger):
    """Lightning's logger for W&B, which ends its part of a W&B run with the training, so that another can begin.

    Args:
        folder: Folder of the run.
        resumes: The run goes on from a checkpoint: in W&B, too, where the folder tells which run it was there.
        **words: Lightning's.
    """

    def __init__(self, folder: str | Path, resumes: bool, **words: Any) -> None:
        self.id_file = Path(folder) / ID_FILE
        known = resumes and self.id_file.exists()
        run_id = self.id_file.read_text().strip() if known else secrets.token_hex(4)
        # W&B takes what the environment says once a process, and Lightning says "offline" there.
        if words.get("offline"):
            words["mode"] = "offline"
        super().__init__(save_dir=folder, id=run_id, **words)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, begun when it is first asked for.

        Raises:
            ConfigError: W&B refuses to begin one.
        """
        from wandb.errors import Error

        try:
            return super().experiment
        except Error as error:
            raise ConfigError(
                f"Weights & Biases begins no run: {error}; log in (wandb login), or keep the figures here with "
                f"wandb.offline: true"
            ) from error

    def finalize(self, status: str) -> None:
        """Finish; figures that come later go on in the same W&B run."""
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)
            self._experiment = None


class KeptRunId(Callback):
    """Keeps in the run's folder which W&B run it is.

    Args:
        logger: What writes to it.
    """

    def __init__(self, logger: RunWandbLogger) -> None:
        self._logger = logger

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Write it down."""
        if trainer.is_global_zero:
            with draft(self._logger.id_file) as file:
                file.write(f"{self._logger.version}\n")
