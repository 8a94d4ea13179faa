"""The training loop for models whose encoders are all cached."""

from __future__ import annotations

import logging
from typing import Any

import lightning
from torch.utils.data import DataLoader

from simtrain.cache.indexed_loader import IndexedDataLoader
from simtrain.errors import ConfigError
from simtrain.runner.train_loop import TrainLoop

logger = logging.getLogger("simtrain")


class CachedTrainLoop(TrainLoop):
    """Trains at the speed of a plain loop over tensors, where every encoder is cached and there is one device.

    It is ``lightning.Trainer`` still, with its callbacks, checkpoints, loggers, validation, precision, accumulation
    and clipping; only the steps between two such events are taken without a trainer's cost a step. Batches are index
    tensors, embeddings come by one gather, the loader's workers are not needed. Weights and logged figures are those
    of :class:`TrainLoop`. Hooks of each batch are called where a callback or the model has one, with what Lightning
    gives them, and cost what they cost: a progress bar that is drawn after each step is dearer than a small step.

    :class:`~simtrain.Runner` uses it by itself; ``training.loop`` of the config says otherwise.

    Args:
        required: Refuse to train where the conditions do not hold; else such a run is that of :class:`TrainLoop`.
    """

    def __init__(self, required: bool = False) -> None:
        self.required = required

    def prepare(self, trainer: lightning.Trainer, train_loader: DataLoader[Any]) -> None:
        """Put the fast steps into the trainer, where the conditions hold.

        Raises:
            ConfigError: They do not, and the loop is required.
        """
        reason = unfit(trainer, train_loader)
        if reason is not None and self.required:
            raise ConfigError(f"CachedTrainLoop cannot run this: {reason}; set training.loop to 'auto' or 'trainer'")
        if reason is not None:
            logger.debug("CachedTrainLoop is not used: %s", reason)
            return
        missing = install_fast_steps(trainer)
        if missing is not None:
            logger.warning("CachedTrainLoop is not used, training is slower: %s", missing)


def unfit(trainer: lightning.Trainer, train_loader: DataLoader[Any]) -> str | None:
    """Why :class:`CachedTrainLoop` has no advantage, or no right, in a run; None where it suits.

    Args:
        trainer: The trainer.
        train_loader: The loader as the model has prepared it.
    """
    if trainer.world_size > 1:
        return f"there are {trainer.world_size} processes"
    if not isinstance(train_loader, IndexedDataLoader):
        return "not every encoder is cached, or the data are no map-style data set"
    return None


def install_fast_steps(trainer: lightning.Trainer) -> str | None:
    """Put the fast steps into a trainer; they use private parts of Lightning.

    Returns:
        What Lightning lacks, so that nothing was done; None where they are in.
    """
    try:
        from simtrain.runner.cached_epoch_loop import install
    except ImportError as error:
        return f"lightning {lightning.__version__}: {error}"
    return install(trainer)
