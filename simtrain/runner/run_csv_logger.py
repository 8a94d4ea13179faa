"""All figures of a run in one CSV file, in which a resumed run goes on."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from simtrain.evaluation.text_files import draft


class _Rows(ExperimentWriter):
    """Writes the rows; Lightning's own deletes those of the run that is resumed.

    Attributes:
        kept: Rows of the file that stay, counted before the first new one.
        written: Rows there are; those that wait to be saved are among them.
    """

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self.kept = self.written = 0
        self._has_begun = False

    def go_on(self, rows: int) -> None:
        """Keep so many rows, and put what comes next behind them."""
        self.kept = self.written = rows
        self._has_begun = False

    def log_metrics(self, metrics_dict: dict[str, Any], step: int | None = None) -> None:
        """Take in a row."""
        if not self._has_begun:
            self._begin()
        super().log_metrics(metrics_dict, step)
        self.written += 1

    def _begin(self) -> None:
        self._has_begun, file = True, Path(self.metrics_file_path)
        self.metrics, self.metrics_keys, rows = [], [], []
        if file.exists():
            with file.open(newline="") as opened:
                reader = csv.DictReader(opened)
                self.metrics_keys = list(reader.fieldnames or [])
                rows = [row for row, _ in zip(reader, range(self.kept), strict=False)]
        self.written = len(rows)
        if rows:
            self._write(rows)
        else:
            self.metrics_keys = []
            file.unlink(missing_ok=True)

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        with Path(self.metrics_file_path).open(newline="") as file:
            rows = list(csv.DictReader(file))
        self._write(rows)

    def _write(self, rows: list[dict[str, Any]]) -> None:
        with draft(Path(self.metrics_file_path)) as file:
            writer = csv.DictWriter(file, fieldnames=self.metrics_keys)
            writer.writeheader()
            writer.writerows(rows)

    def _check_log_dir_exists(self) -> None:
        """What is there is looked at when the first row comes."""


class RunCSVLogger(CSVLogger):
    """Lightning's logger for CSV files; a resumed run keeps the rows that were there when its checkpoint was saved.

    Args:
        folder: Where ``metrics.csv`` goes.

    Example:
        >>> RunCSVLogger("runs/one/csv").log_dir
        'runs/one/csv/'
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(Path(folder).parent, name=Path(folder).name, version="")

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """What writes the rows; Lightning's stand-in for it in other processes than the first."""
        if self._experiment is None:
            self._experiment = _Rows(self.log_dir)
        return self._experiment


class KeptRows(Callback):
    """Keeps in checkpoints how many rows there are.

    Args:
        logger: What writes them.
    """

    def __init__(self, logger: RunCSVLogger) -> None:
        self._logger = logger

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        rows = self._logger.experiment
        if not isinstance(rows, _Rows):
            return {}
        rows.save()  # a checkpoint counts on them
        return {"rows": rows.written}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        rows = self._logger.experiment
        if isinstance(rows, _Rows):
            rows.go_on(state_dict["rows"])
