"""The weights that a validation measures: averaged ones, where a callback keeps an average."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import lightning
from lightning.pytorch import callbacks

# Lightning has it since 2.6; earlier there is no average to ask for.
AVERAGING = getattr(callbacks, "WeightAveraging", ())


@contextmanager
def averaged_weights(trainer: lightning.Trainer, model: lightning.LightningModule) -> Iterator[None]:
    """Have the averaged weights in a model in training, and the trained ones again afterwards.

    They are what validation measures, checkpoints hold and training ends with. Nothing happens where no callback
    averages.

    Args:
        trainer: Whose callbacks are asked, :class:`~simtrain.training.averaging.WeightEMA` and Lightning's own.
        model: What it trains.

    Example:
        >>> model = lightning.LightningModule()
        >>> with averaged_weights(lightning.Trainer(logger=False, enable_checkpointing=False), model):
        ...     pass
    """
    averages = [callback for callback in trainer.callbacks if isinstance(callback, AVERAGING)]  # type: ignore[attr-defined]
    for callback in averages:
        callback.on_validation_epoch_start(trainer, model)
    try:
        yield
    finally:
        for callback in averages:
            callback.on_validation_epoch_end(trainer, model)
