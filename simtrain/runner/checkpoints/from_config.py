"""The checkpoints that a config asks for."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from simtrain.config import plain
from simtrain.errors import CheckpointError, ConfigError
from simtrain.runner.checkpoints.checkpoint_callback import CheckpointCallback
from simtrain.runner.checkpoints.resume_source import AUTO, CHECKPOINTS, check_begun, resume_path

#: Settings of the section that are not the callback's.
OWN = ("enable", "folder", "load_best")


def checkpoint_callback(cfg: DictConfig) -> CheckpointCallback | None:
    """The callback that a config's section ``checkpoint`` asks for.

    Args:
        cfg: A whole config.

    Returns:
        The callback; None where nothing is to be saved.

    Raises:
        ConfigError: Something in the section is wrong.
    """
    section = plain(cfg.checkpoint)
    wanted = cfg.run_dir is not None or section["folder"] is not None
    if not (wanted if section["enable"] is None else section["enable"]):
        if section["load_best"]:
            raise ConfigError("checkpoint.load_best needs checkpoints: set checkpoint.enable, or a run_dir")
        return None
    return CheckpointCallback(folder_of(cfg), **{name: value for name, value in section.items() if name not in OWN})


def folder_of(cfg: DictConfig) -> Path:
    """Where a run's checkpoints go.

    Raises:
        ConfigError: The config names no folder.
    """
    if cfg.checkpoint.folder is None and cfg.run_dir is None:
        raise ConfigError("checkpoints need a folder: set run_dir (or checkpoint.folder)")
    return Path(cfg.checkpoint.folder or Path(cfg.run_dir) / CHECKPOINTS)


def resumed_from(cfg: DictConfig) -> Path | None:
    """The checkpoint that a config's ``training.resume_from`` means; see :func:`resume_path`."""
    resume_from = cfg.training.resume_from
    if resume_from is None:
        return None
    if resume_from != AUTO:
        return resume_path(resume_from, Path())
    return resume_path(AUTO, _searched(cfg))


def check_resume(cfg: DictConfig) -> None:
    """Raise an error where ``training.resume_from`` names what is not there, or a folder that nobody has named."""
    resume_from = cfg.training.resume_from
    if resume_from == AUTO:
        check_begun(_searched(cfg))
    if resume_from not in (None, AUTO) and not Path(resume_from).exists():
        raise CheckpointError(f"there is no checkpoint {resume_from!r} to resume from (training.resume_from)")


def _searched(cfg: DictConfig) -> Path:
    folder = folder_of(cfg)
    return folder if cfg.checkpoint.folder is not None else folder.parent
