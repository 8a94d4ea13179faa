"""The section ``checkpoint`` of a config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from simtrain.config.limits import AtLeast, limited


@dataclass
class CheckpointConfig:
    """What is saved of a run while it trains, so that it can go on after it was stopped or killed.

    Attributes:
        enable: Save checkpoints; null saves where the config names a ``run_dir``.
        folder: Where they go; null for ``checkpoints`` in ``run_dir``.
        monitor: Figure by which the best are kept, or figure → whether more of it is better (null: its name tells);
            null for ``validation_loss``.
        topk: How many of the best are kept for each figure.
        last: How many of the newest are kept beside them; null keeps all.
        begin_epoch: First epoch that is saved, from 1; null for ``epoch_interval``.
        epoch_interval: Epochs from one save to the next; null for none by epoch. The last epoch is always saved.
        begin_step: First optimizer step that is saved; null for ``step_interval``.
        step_interval: Optimizer steps from one save to the next; null for none by step.
        on_exception: Save, too, where an exception breaks the run off.
        load_best: Leave the best weights in the model when training has ended, in place of the last ones.
    """

    enable: bool | None = None
    folder: str | None = None
    monitor: Any = None
    topk: int = limited(3, AtLeast(0))
    last: int | None = limited(2, AtLeast(1))
    begin_epoch: int | None = limited(None, AtLeast(1))
    epoch_interval: int | None = limited(1, AtLeast(1))
    begin_step: int | None = limited(None, AtLeast(1))
    step_interval: int | None = limited(None, AtLeast(1))
    on_exception: bool = True
    load_best: bool = False
