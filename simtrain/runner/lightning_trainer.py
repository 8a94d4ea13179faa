"""The trainer that a runner's config asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from simtrain.errors import ConfigError


def lightning_trainer(
    training: DictConfig,
    epochs: int,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    accumulates: bool = True,
) -> lightning.Trainer:
    """A trainer as a config's section ``training`` asks for it.

    Args:
        training: The section.
        epochs: Passes over the training data.
        callbacks: Lightning callbacks.
        loggers: Lightning loggers; none logs nowhere.
        accumulates: The trainer accumulates and clips gradients; otherwise the model does.

    Raises:
        ConfigError: It cannot be had on this machine.
    """
    words: dict[str, Any] = {
        "max_epochs": epochs,
        "max_steps": -1 if training.max_steps is None else training.max_steps,
        "max_time": training.max_time,
        "accelerator": training.device,
        "devices": training.devices,
        "strategy": training.strategy,
        "precision": training.precision,
        "accumulate_grad_batches": training.gradient_accumulation if accumulates else 1,
        "gradient_clip_val": training.grad_clip if accumulates else None,
        "callbacks": list(callbacks),
        "logger": list(loggers) or False,
        "enable_checkpointing": any(isinstance(callback, Checkpoint) for callback in callbacks),
        # Its own bar only where somebody brings it: there is another one.
        "enable_progress_bar": any(isinstance(callback, ProgressBar) for callback in callbacks),
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
    }
    try:
        return lightning.Trainer(**words)
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        raise ConfigError(f"lightning cannot run with this config's section 'training': {error}") from error
