"""The section ``log`` of a config."""

from __future__ import annotations

from dataclasses import dataclass

from simtrain.config.limits import OneOf, limited

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass
class LogConfig:
    """What a run tells in words while it runs.

    Attributes:
        to_file: Also write it to ``run.log`` in ``run_dir``, with the config and the model, where there is a folder.
        level: Least level of what the first process tells.
        rank_level: Least level of what each other process tells.
    """

    to_file: bool = True
    level: str = limited("INFO", OneOf(LEVELS))
    rank_level: str = limited("WARNING", OneOf(LEVELS))
