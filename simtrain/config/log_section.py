"""The sections ``log`` and ``wandb`` of a config."""

from __future__ import annotations

from dataclasses import dataclass, field

from simtrain.config.limits import OneOf, limited

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass
class LogConfig:
    """What a run tells in words while it runs.

    Attributes:
        to_file: Also write it to ``run.log`` in ``run_dir``, with the config and the model, where there is a folder.
        level: Least level of what the first process tells.
        rank_level: Least level of what each other process tells.
        csv: Write all figures to ``csv/metrics.csv`` in ``run_dir``.
        tensorboard: Write them for TensorBoard to ``tensorboard`` in ``run_dir``.
    """

    to_file: bool = True
    level: str = limited("INFO", OneOf(LEVELS))
    rank_level: str = limited("WARNING", OneOf(LEVELS))
    csv: bool = False
    tensorboard: bool = False


@dataclass
class WandbConfig:
    """Figures for Weights & Biases.

    Attributes:
        enable: Send them.
        proj_name: The project.
        offline: Keep them in ``run_dir``, for ``wandb sync`` later.
        tags: Tags of the run.
    """

    enable: bool = False
    proj_name: str = "simtrain"
    offline: bool = False
    tags: list[str] = field(default_factory=list)
