"""What a run runs on: versions, platform, devices, and the commit of the working tree."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

#: Packages whose versions decide what a run computes.
PACKAGES = (
    *("torch", "lightning", "torchmetrics", "pytorch-metric-learning", "numpy", "scipy", "omegaconf", "safetensors"),
    *("sentence-transformers", "transformers", "peft", "pillow", "qdrant-client", "optuna"),
)
_PATIENCE = 10.0  # seconds for git, which may sit on a slow network drive


def environment(folder: Path | None = None) -> dict[str, Any]:
    """Describe the environment of this process, as JSON values.

    Args:
        folder: Where to look for a git working tree; default: the current folder.

    Returns:
        ``simtrain``, ``python``, ``platform``, ``cpus``, ``packages`` (name → version, for those that are there),
        ``devices`` and ``git`` (``commit`` and ``dirty``, or None outside a working tree).

    Example:
        >>> sorted(environment())
        ['cpus', 'devices', 'git', 'packages', 'platform', 'python', 'simtrain']
    """
    return {
        "simtrain": version_of("simtrain"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": {name: version for name in PACKAGES if (version := version_of(name)) is not None},
        "devices": devices(),
        "git": working_tree(Path.cwd() if folder is None else folder),
    }


def version_of(package: str) -> str | None:
    """Version of an installed package, by its name in the registry; None where it is not installed.

    Example:
        >>> version_of("no-such-package") is None
        True
    """
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def devices() -> list[dict[str, Any]]:
    """The accelerators that torch can use; empty where there are none.

    Example:
        >>> isinstance(devices(), list)
        True
    """
    import torch

    found: list[dict[str, Any]] = []
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(number)
            found.append({"device": f"cuda:{number}", "name": properties.name, "bytes": properties.total_memory})
    if sys.platform == "darwin" and torch.backends.mps.is_available():
        found.append({"device": "mps", "name": platform.processor() or "Apple", "bytes": None})
    return found


def working_tree(folder: Path) -> dict[str, Any] | None:
    """Commit of the git working tree that a folder is in, and whether files of it were changed since.

    Args:
        folder: A folder.

    Returns:
        None outside of a working tree, in one without a commit, and where there is no git.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *words: str) -> str | None:
    try:
        # Reading only: the index of a repository that somebody else is working in is left alone.
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
