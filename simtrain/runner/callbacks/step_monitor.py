"""Learning rates and the gradients' norm, step by step."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import Callback

from simtrain import registry
from simtrain.errors import ConfigError
from simtrain.training.gradient_clipping import gradient_norm


@registry.callbacks.register_module()
class StepMonitor(Callback):
    """Logs the rate of each group of parameters and the norm of all gradients, before they are clipped.

    The figures are ``lr`` (or ``lr/<pattern>`` for groups that have a name, ``lr/<number>`` for others) and
    ``train_gradient_norm``.

    Args:
        every_n_steps: Optimizer steps from one time to the next.

    Raises:
        ConfigError: ``every_n_steps`` is not positive.

    Example:
        >>> StepMonitor(every_n_steps=10).every_n_steps
        10
    """

    def __init__(self, every_n_steps: int = 1) -> None:
        if not isinstance(every_n_steps, int) or isinstance(every_n_steps, bool) or every_n_steps < 1:
            raise ConfigError(f"every_n_steps should be a positive integer, got {every_n_steps!r}")
        self.every_n_steps = every_n_steps

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Log them."""
        if trainer.global_step % self.every_n_steps:
            return
        groups = optimizer.param_groups
        for number, group in enumerate(groups):
            name = f"lr/{group.get('name', number)}" if len(groups) > 1 else "lr"
            pl_module.log(name, float(group["lr"]), on_step=True, on_epoch=False, batch_size=1)
        norm = gradient_norm(one for group in groups for one in group["params"])
        if norm is not None:
            pl_module.log("train_gradient_norm", norm, on_step=True, on_epoch=False, batch_size=1)
