"""What is wrong with a job, as far as can be seen before it is run: parts that do not build, data that is not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from simtrain.config import plain, require
from simtrain.errors import DataError, SimtrainError
from simtrain.runner.data_source import data_source
from simtrain.runner.job_data import STAGES
from simtrain.training.parts import model_parts

_REQUIRED = ("encoders", "loss", "data.train")
# Parts that cost nothing to build; an encoder may load a model.
_LIGHT_PARTS = ("loss", "cache", "xbm", "optimizer", "scheduler", "metrics", "evaluators")


def job_problems(cfg: DictConfig) -> Iterator[SimtrainError]:
    """Look at a job's config without encoders, data or a device.

    Args:
        cfg: A config with all fields of the schema.

    Yields:
        An error for each thing that would keep the job from running.

    Example:
        >>> from simtrain import load_cfg
        >>> for error in job_problems(load_cfg({"loss": {"type": "SupConLoss"}})):
        ...     print(error)
        the config gives no value for 'encoders'; add it to the file or as encoders=…
        the config gives no value for 'data.train'; add it to the file or as data.train=…
    """
    for check in _checks(cfg):
        try:
            check()
        except SimtrainError as error:
            yield error


def _checks(cfg: DictConfig) -> Iterator[Callable[[], object]]:
    for key in _REQUIRED:
        yield partial(require, cfg, [key])
    for part in _LIGHT_PARTS:
        if not OmegaConf.is_missing(cfg, part) and cfg[part] is not None:
            yield partial(model_parts, {part: plain(cfg[part])})
    for stage in STAGES:
        if cfg.data[stage] is not None:
            yield partial(_check_source, cfg, stage)


def _check_source(cfg: DictConfig, stage: str) -> None:
    path = data_source(cfg, stage).path
    if not Path(path).exists():
        raise DataError(f"data.{stage}: there is no file or folder {path!r}")
