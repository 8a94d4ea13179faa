"""The optimizer wrapper of a model that updates its parameters itself under ``lightning.Trainer``."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import lightning
from torch import Tensor
from torch.optim import Optimizer

from simtrain.training.optim_wrapper import OptimWrapper


class LightningOptimWrapper(OptimWrapper):
    """Leaves the backward pass and the step to the trainer, which knows about precision and about other processes.

    Args:
        module: The model under training.
        optimizer: One of its optimizers, as ``module.optimizers()`` gives it.
        **settings: Arguments of :class:`OptimWrapper`.
    """

    def __init__(self, module: lightning.LightningModule, optimizer: Optimizer, **settings: Any) -> None:
        super().__init__(optimizer, **settings)
        self._module = module
        self.knows_its_batches = False

    def initialize_count_status(self, model: Any, init_counts: int, max_counts: int) -> None:
        """Tell how many batches of the epoch are done and how many there are."""
        super().initialize_count_status(model, init_counts, max_counts)
        self.knows_its_batches = True

    def backward(self, loss: Tensor) -> None:
        """Backward pass in the trainer's precision; gradients are synchronised where an update follows."""
        block_sync = getattr(self._module.trainer.strategy, "block_backward_sync", None)
        with nullcontext() if block_sync is None or self.should_sync() else block_sync():
            self._module.manual_backward(loss)

    def step(self, **kwargs: Any) -> None:
        """Optimizer step, then the schedules that follow each.

        Gradients are clipped in the model's hook ``on_before_optimizer_step``: here they may still be scaled.
        """
        self.optimizer.step(**kwargs)
        for config in self._module.trainer.lr_scheduler_configs:
            if config.interval == "step":
                config.scheduler.step()  # type: ignore[call-arg]
