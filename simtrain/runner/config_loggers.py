"""The loggers that a config asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from simtrain.config import plain
from simtrain.errors import ConfigError, ContractError, import_extra
from simtrain.runner.run_csv_logger import KeptRows, RunCSVLogger
from simtrain.runner.run_tensorboard_logger import PurgedPoints, RunTensorBoardLogger
from simtrain.runner.run_wandb_logger import KeptRunId, RunWandbLogger


def config_loggers(cfg: DictConfig) -> list[Logger]:
    """Lightning loggers as a config's sections ``log`` and ``wandb`` ask for them.

    Args:
        cfg: A config from :func:`simtrain.load_cfg`.

    Raises:
        ConfigError: They have no folder to write to.
        MissingExtraError: A package that one of them needs is not installed.

    Example:
        >>> from simtrain import load_cfg
        >>> cfg = load_cfg({"run_dir": "runs/one", "log": {"csv": True}})
        >>> [type(one).__name__ for one in config_loggers(cfg)]
        ['RunCSVLogger']
    """
    loggers: list[Logger] = []
    if cfg.log.csv:
        loggers.append(RunCSVLogger(_folder(cfg, "log.csv") / "csv"))
    if cfg.log.tensorboard:
        import_extra("tensorboard", "loggers")
        loggers.append(RunTensorBoardLogger(_folder(cfg, "log.tensorboard") / "tensorboard"))
    if cfg.wandb.enable:
        import_extra("wandb", "loggers")
        words = {"project": cfg.wandb.proj_name, "offline": cfg.wandb.offline, "tags": plain(cfg.wandb.tags)}
        resumes = cfg.training.resume_from is not None
        loggers.append(RunWandbLogger(_folder(cfg, "wandb.enable"), resumes, config=plain(cfg), **words))
    return loggers


def listed_loggers(given: Any) -> list[Logger]:
    """Lightning loggers as a list; raises a :class:`ContractError` where one is none, such as the name of one."""
    loggers = [] if given is None else list(given) if isinstance(given, Sequence) else [given]
    for one in [given] if isinstance(given, str) else loggers:
        if not isinstance(one, Logger):
            raise ContractError(
                f"logger should be a lightning Logger, or several, got {one!r}; by config: log.csv, log.tensorboard, "
                f"wandb.enable"
            )
    return loggers


def logger_callbacks(loggers: Sequence[Logger]) -> list[Callback]:
    """What loggers from :func:`config_loggers` have to be told, so that a resumed run logs nothing twice."""
    kinds: dict[type, type] = {RunCSVLogger: KeptRows, RunTensorBoardLogger: PurgedPoints, RunWandbLogger: KeptRunId}
    return [kinds[type(one)](one) for one in loggers if type(one) in kinds]


def _folder(cfg: DictConfig, key: str) -> Path:
    if cfg.run_dir is None:
        raise ConfigError(f"{key} writes into the run's folder: give the config a run_dir, such as runs/NAME")
    return Path(cfg.run_dir)
