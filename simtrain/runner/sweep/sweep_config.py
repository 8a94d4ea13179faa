"""The file that says what a sweep varies, and what it looks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig

from simtrain.config.keys import section_docs
from simtrain.config.limits import AtLeast, OneOf, Within, limited
from simtrain.config.loading import examine, load_cfg
from simtrain.config.nodes import plain, require
from simtrain.errors import ConfigError
from simtrain.runner.sweep.param_space import ParamSpace


@dataclass
class SweepConfig:
    """A sweep over the settings of a job.

    Attributes:
        config: The job: its YAML file, or the same written here.
        param_space: Key of the job, with dots → what it may be: ``{type: choice, values: […]}``, ``grid``,
            ``{type: uniform, low: …, high: …}``, ``loguniform``, ``randint`` (``high`` included).
        metric: Figure of the validation to go by, such as ``validation_loss`` or an evaluator's.
        mode: ``min`` or ``max``.
        trials: How many jobs; where there are grids, for each of their points. Null: 20, or each point once.
        run_dir: Folder of the sweep. The same folder again goes on where the sweep stopped.
        seed: Seed of what is tried.
        sampler: ``tpe`` learns from what was tried, ``random`` does not.
        pruner: ``{type: …}`` of what ends hopeless trials, with the settings of Optuna's pruner of that kind:
            ``median``, ``asha``, ``hyperband``, ``percentile``, ``threshold``; null for none. Steps are validations.
        keep: Whose models and checkpoints stay: ``best``, that of the best trial, or ``all``.
        storage: URL of a database that several machines share; null keeps one in the folder.
    """

    config: Any = MISSING
    param_space: dict[str, Any] = MISSING
    metric: str = "validation_loss"
    mode: str = limited("min", OneOf(("min", "max")))
    trials: int | None = limited(None, AtLeast(1))
    run_dir: str = "runs/sweep"
    seed: int = limited(0, Within(0, 2**32 - 1))
    sampler: str = limited("tpe", OneOf(("tpe", "random")))
    pruner: dict[str, Any] | None = field(default_factory=lambda: {"type": "median"})
    keep: str = limited("best", OneOf(("best", "all")))
    storage: str | None = None


@dataclass(frozen=True)
class Sweep:
    """A sweep whose names and values are known to be right.

    Attributes:
        cfg: The sweep's config.
        job: What the job's config is made of: a file or values.
        overrides: What was said on top of the job's config.
        space: What is varied.
    """

    cfg: DictConfig
    job: str | dict[str, Any]
    overrides: tuple[str, ...]
    space: ParamSpace

    def job_config(self, params: Mapping[str, Any]) -> DictConfig:
        """The job's config with other values.

        Args:
            params: Key with dots → value.
        """
        return load_cfg(self.job, [*self.overrides, *self.space.overrides(params)])

    def identity(self) -> dict[str, Any]:
        """What trials have to share to be compared, by name: the figure, the space, and each key of the job."""
        own = {"metric": self.cfg.metric, "mode": self.cfg.mode}
        space = {f"param_space.{key}": values for key, values in self.space.as_dict().items()}
        job = plain(self.job_config(next(self.space.corners())))
        sections = {name: values for name, values in job.items() if name in section_docs()}
        keys = {name: values for name, values in job.items() if name not in {*sections, "run_dir"}}
        inner = {f"{name}.{key}": value for name, values in sections.items() for key, value in values.items()}
        return {**own, **space, **keys, **inner}

    @property
    def folder(self) -> Path:
        """The sweep's folder."""
        return Path(self.cfg.run_dir)


def load_sweep(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep's file, and check it with the job that it names.

    Args:
        source: YAML file, or the same as a mapping.
        overrides: ``key=value`` words. A key of the sweep's own (``trials=5``) changes the sweep, any other the job.

    Raises:
        ConfigError: A key or a value of the sweep or of the job is wrong.

    Example:
        >>> job = {"loss": {"type": "SupConLoss"}, "encoders": {"type": "NgramEncoder"}, "data": {"train": "a.csv"}}
        >>> space = {"loss.temperature": {"type": "uniform", "low": 0.05, "high": 0.5}}
        >>> file = {"config": job | {"data": {"train": "a.csv", "valid": "b.csv"}}, "param_space": space}
        >>> load_sweep(file, ["trials=3"]).cfg.trials
        3
    """
    own = {one.name for one in fields(SweepConfig)}
    mine = [word for word in overrides if word.partition("=")[0].partition(".")[0] in own]
    cfg, errors = examine(source, mine, SweepConfig)
    if errors:
        raise errors[0]
    require(cfg, ["config", "param_space"])
    space = ParamSpace.from_words(plain(cfg.param_space))
    job = plain(cfg.config)
    if not isinstance(job, (str, dict)):
        raise ConfigError(f"config should be the path of a job's file, or the job itself, got {job!r}")
    sweep = Sweep(cfg, job, tuple(word for word in overrides if word not in mine), space)
    # A wrong key is found now, and not by the first trial.
    for params in space.corners():
        require(sweep.job_config(params), ["encoders", "loss", "data.train", "data.valid"])
    return sweep
