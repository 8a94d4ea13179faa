"""Weights out of a checkpoint into a model that is going to be trained, or served."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import nn

from simtrain.errors import CheckpointError
from simtrain.runner.checkpoints.checkpoint_callback import CheckpointCallback
from simtrain.training.checkpoint_weights import load_weights

logger = logging.getLogger("simtrain")
SHOWN = 5


def begin_with(model: nn.Module, path: str | Path) -> list[str]:
    """Load the weights that ``training.load_from`` names, and tell of names that only the file or the model has.

    Args:
        model: The model.
        path: A safetensors, torch or Lightning file.

    Returns:
        Names of the model that the file does not have.

    Raises:
        CheckpointError: The file cannot be read, holds code, no name of it is in the model, or shapes differ.
    """
    missing = load_weights(model, path)
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        logger.warning(
            "%s (training.load_from) has no weights for %s%s: they begin as they are",
            path,
            ", ".join(missing[:SHOWN]),
            more,
        )
    return missing


def load_best(model: nn.Module, checkpoints: CheckpointCallback | None) -> str:
    """Load the weights of a run's best checkpoint.

    Args:
        model: The model of the run.
        checkpoints: What saved the run.

    Returns:
        The checkpoint's path.

    Raises:
        CheckpointError: There is none, or it is of another model.
    """
    path = "" if checkpoints is None else checkpoints.best_model_path
    if not path:
        raise CheckpointError(
            "there is no best checkpoint: set checkpoint.enable, and checkpoint.monitor to a figure that is logged"
        )
    missing = load_weights(model, path)
    if missing:
        raise CheckpointError(f"{path} is of another model: it has no {', '.join(missing[:SHOWN])}")
    return path
