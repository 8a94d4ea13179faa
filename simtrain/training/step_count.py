"""How many optimizer steps a training is going to take."""

from __future__ import annotations

import math
from typing import Any

import lightning
from torch.utils.data import DataLoader, DistributedSampler


def n_optimizer_steps(module: Any) -> int:
    """Optimizer steps of a whole training, for a schedule that depends on them.

    Args:
        module: A model of the contract, under a trainer that is about to train it.
    """
    trainer, batches = module.trainer, _n_batches(module.trainer)
    # One of the two accumulates; a runner gives its setting to both.
    by_wrapper = 1 if module.automatic_optimization else module.optim_wrapper_cfg.get("accumulative_counts", 1)
    window = by_wrapper * trainer.accumulate_grad_batches
    epochs, most = trainer.max_epochs or -1, trainer.max_steps
    if batches is None or epochs == -1:
        return int(trainer.estimated_stepping_batches)
    steps = math.ceil(batches / window) * epochs
    return int(steps if most == -1 else min(steps, most))


def _n_batches(trainer: lightning.Trainer) -> int | None:
    # Not asked of the trainer: it would set its loaders up, and then forget where a resumed one had come to.
    loader = trainer.fit_loop._data_source.instance
    if not isinstance(loader, DataLoader) or getattr(trainer, "overfit_batches", False):
        return None
    if trainer.world_size > 1 and not isinstance(loader.sampler, DistributedSampler):
        return None  # the trainer is going to divide it
    try:
        batches = len(loader)
    except TypeError:  # a stream
        return None
    limit = trainer.limit_train_batches
    return min(batches, limit) if isinstance(limit, int) else int(batches * (1.0 if limit is None else limit))
