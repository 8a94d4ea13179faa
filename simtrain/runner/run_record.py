"""What is kept of every run, beside its results: the resolved config, and what it ran on."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from simtrain.config.environment import environment
from simtrain.evaluation.text_files import draft

CONFIG_FILE = "config.yaml"
ENVIRONMENT_FILE = "environment.json"


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
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    record = {"seed": cfg.seed, "started": started, **environment()}
    with draft(folder / ENVIRONMENT_FILE) as file:
        file.write(json.dumps(record, indent=2) + "\n")
    with draft(folder / CONFIG_FILE) as file:
        file.write(OmegaConf.to_yaml(cfg, resolve=True))
