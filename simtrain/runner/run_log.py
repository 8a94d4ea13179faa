"""What a run tells in words: at which level, and in which file."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from simtrain.runner.runner_state import RunnerState

LOG_FILE = "run.log"
logger = logging.getLogger("simtrain")


class _LogFile(logging.FileHandler):
    """A log file that breaks off no run: where it cannot be written, that is told once."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._told:
            self._told = True
            print(f"cannot write {self.baseFilename}: {error}", file=sys.stderr)

    def close(self) -> None:
        # What is left to write is lost with the rest.
        with suppress(OSError):
            super().close()


class RunLog:
    """The log of ``"simtrain"`` while a run runs: its level, and ``run.log`` in the run's folder.

    All processes write to one file, each line whole. A resumed run goes on in the file.

    Args:
        cfg: A config; its section ``log`` and its ``run_dir`` count.
        state: Which process this is.
    """

    def __init__(self, cfg: DictConfig, state: RunnerState) -> None:
        self._cfg, self._state = cfg, state
        self._handler: logging.FileHandler | None = None
        self._outer_level: int | None = None

    def open(self) -> None:
        """Take over the log, and write down the config and the model."""
        main = self._state.is_main_process
        self._outer_level = logger.level
        logger.setLevel(self._cfg.log.level if main else self._cfg.log.rank_level)
        if self._cfg.log.to_file and self._cfg.run_dir is not None:
            folder = Path(self._cfg.run_dir)
            folder.mkdir(parents=True, exist_ok=True)
            self._handler = _LogFile(folder / LOG_FILE, encoding="utf-8")
            mark = "" if self._state.world_size == 1 else f" [{self._state.rank}]"
            self._handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s{mark} %(message)s"))
            logger.addHandler(self._handler)
        if main:
            logger.info("training %s", self._state.start_msg)
            self._write("config:\n%s", OmegaConf.to_yaml(self._cfg, resolve=True).rstrip())
            self._write("model:\n%s", self._state.model_info)

    def close(self) -> None:
        """Give the log back; to be called after :meth:`open` in any case."""
        if self._outer_level is not None:
            logger.setLevel(self._outer_level)
        if self._handler is not None:
            logger.removeHandler(self._handler)
            self._handler.close()
        self._handler = self._outer_level = None

    def _write(self, message: str, text: str) -> None:
        # To the file alone: pages of it would bury everything else on a terminal.
        if self._handler is not None:
            record = logger.makeRecord(logger.name, logging.INFO, __file__, 0, message, (text,), None)
            self._handler.handle(record)
