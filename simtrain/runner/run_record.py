"""What is kept of every run, beside its results: the resolved config, and what it ran on."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from simtrain.config import plain
from simtrain.config.environment import environment
from simtrain.evaluation.text_files import draft
from simtrain.models.card_table import flattened

CONFIG_FILE = "config.yaml"
ENVIRONMENT_FILE = "environment.json"
#: Keys that change nothing of what a run computes.
_ASIDE = ("run_dir", "log", "wandb", "checkpoint", "training.resume_from", "training.progress")

logger = logging.getLogger("simtrain")


def write_record(cfg: DictConfig, folder: Path) -> None:
    """Write ``config.yaml`` and ``environment.json`` into a run's folder; each takes its place when it is whole.

    Args:
        cfg: The resolved config: ``simtrain train config.yaml`` runs the same job again.
        folder: The run's folder; it is made where it is missing.

    Example:
        >>> import tempfile
        >>> from simtrain import load_cfg
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_record(load_cfg({"seed": 3}), Path(folder))
        ...     print(json.loads(Path(folder, "environment.json").read_text())["seed"])
        3
    """
    folder.mkdir(parents=True, exist_ok=True)
    if cfg.training.resume_from is not None:
        _tell_changes(cfg, folder / CONFIG_FILE)
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    record = {"seed": cfg.seed, "started": started, **environment()}
    with draft(folder / ENVIRONMENT_FILE) as file:
        file.write(json.dumps(record, indent=2) + "\n")
    with draft(folder / CONFIG_FILE) as file:
        file.write(OmegaConf.to_yaml(cfg, resolve=True))


def _tell_changes(cfg: DictConfig, before: Path) -> None:
    # A checkpoint brings an optimizer's settings with it: another rate in the config would be ignored without a word.
    if not before.is_file():
        return
    old, new = dict(flattened(plain(OmegaConf.load(before)))), dict(flattened(plain(cfg)))
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key) and not key.startswith(_ASIDE)]
    if changed:
        told = ", ".join(f"{key} {old.get(key)!r} -> {new.get(key)!r}" for key in changed)
        logger.warning(
            "this run goes on with another config than it was left with: %s; the optimizer keeps the rates and "
            "settings of the checkpoint",
            told,
        )
