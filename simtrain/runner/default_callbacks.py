"""The callbacks that a runner has by itself, before those that it is given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightning.pytorch.callbacks import Callback, ProgressBar
from omegaconf import DictConfig

from simtrain import registry
from simtrain.config import plain
from simtrain.runner.callbacks import EpochSummary, run_progress


def default_callbacks(cfg: DictConfig, given: Iterable[Any] = ()) -> list[Callback]:
    """Progress, early stopping, the table of epochs, and what the config's ``callbacks`` names.

    Args:
        cfg: A config from :func:`simtrain.load_cfg`.
        given: Callbacks that are used, too: a bar of Lightning's takes the place of progress.

    Raises:
        ConfigError: The arguments of one are wrong.

    Example:
        >>> from simtrain import load_cfg
        >>> [type(one).__name__ for one in default_callbacks(load_cfg({"training": {"progress_bar": False}}))]
        []
    """
    training, callbacks = cfg.training, []
    show, aloud = plain(training.progress_show), training.progress_bar
    is_shown = aloud is not False
    if is_shown and not any(isinstance(one, ProgressBar) for one in given):
        every = {
            "every_n_epochs": training.progress_every_n_epochs,
            "every_n_batches": training.progress_every_n_batches,
        }
        callbacks.append(run_progress(show, **every, aloud=aloud))
    if training.early_stop is not None:
        callbacks.append(registry.callbacks.build({"type": "EarlyStop", **plain(training.early_stop)}))
    if is_shown:
        callbacks.append(EpochSummary(show, aloud))
    return [*callbacks, *(registry.callbacks.build(one) for one in plain(cfg.callbacks))]
