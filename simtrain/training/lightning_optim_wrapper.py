"""The optimizer wrapper of a model that updates its parameters itself under ``lightning.Trainer``."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import lightning
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

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
        """Optimizer step, then the schedules of this optimizer that follow each step.

        Gradients that a scaler has scaled are clipped later, in the model's hook ``on_before_optimizer_step``.
        """
        if not self.is_scaled:
            self.clip()
        self.optimizer.step(**kwargs)
        for config in self._module.trainer.lr_scheduler_configs:
            own = config.scheduler.optimizer.param_groups is self.param_groups
            if own and config.interval == "step" and self.n_updates % config.frequency == 0:
                step_schedule(config.scheduler)

    @property
    def is_scaled(self) -> bool:
        """Whether gradients are scaled until just before the optimizer's step."""
        return getattr(self._module.trainer.precision_plugin, "scaler", None) is not None

    def collected(self) -> dict[str, Any]:
        """Counts, and gradients of an open window, for checkpoints; the optimizer's own state is saved elsewhere."""
        state: dict[str, Any] = self.state_dict()["accumulation"]
        return state

    def restore_collected(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`collected` gave."""
        self._restore(**state)


def step_schedule(schedule: Any) -> None:
    """Step a schedule; one that waits for a plateau of a figure is left to the model, which knows the figure."""
    if not isinstance(schedule, ReduceLROnPlateau):
        schedule.step()
