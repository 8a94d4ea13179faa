"""Exponential moving average of the weights, on Lightning's averaging callback."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from simtrain import registry
from simtrain.errors import ConfigError, MissingExtraError

try:
    from lightning.pytorch.callbacks import WeightAveraging
except ImportError as error:
    raise MissingExtraError(
        f"averaging weights needs lightning 2.6 or newer, this is {lightning.__version__}; "
        f"run: pip install 'lightning>=2.6'"
    ) from error


@registry.callbacks.register_module("EMA")
class WeightEMA(WeightAveraging):
    """Validates with, saves and ends with an exponential moving average of the trained weights.

    After an optimizer step ``average = decay * average + (1 - decay) * weight``, at most once a batch; the first one
    copies. The average is kept in float32 or finer. Frozen parameters cost nothing, and buffers (batch-norm statistics,
    a cross-batch memory) are those of the model itself.
    During validation, tests in training, passes of evaluators, in checkpoints (``state_dict``) and after training the
    averaged weights are in place; checkpoints keep the raw ones for resuming.

    Reference:
        Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992. ``decay`` is one minus the
        momentum of other libraries.

    Args:
        decay: Share of the old average, in [0, 1).
        every_n_steps: Optimizer steps from one update to the next, at the least.
        start_step: Optimizer steps before the first update; until then the average is the weights themselves.
        device: Where the average is kept; default: beside the model.

    Raises:
        ConfigError: A number lies outside its range.

    Example:
        >>> WeightEMA(decay=0.99).decay
        0.99
    """

    def __init__(
        self,
        decay: float | int = 0.999,
        every_n_steps: int = 1,
        start_step: int = 0,
        device: torch.device | str | int | None = None,
    ) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f"the decay of an average should be at least 0 and below 1, got {decay}")
        if every_n_steps < 1 or start_step < 0:
            raise ConfigError(
                f"every_n_steps should be at least 1 and start_step at least 0, got {every_n_steps} and {start_step}"
            )
        super().__init__(device=device, use_buffers=False)
        self.decay, self.every_n_steps, self.start_step = decay, every_n_steps, start_step
        self._is_exchanged = False

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Whether the average takes in the weights after a step; ``step_idx`` counts from zero."""
        if step_idx is None or step_idx < self.start_step:
            return False
        # A batch may have taken several steps: no multiple need be met exactly. Zero stands for no update yet.
        return self._latest_update_step == 0 or step_idx + 1 - self._latest_update_step >= self.every_n_steps

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Copy the model before training."""
        if stage == "fit":
            self._average_model = _TrainedAverage(pl_module, self._device or pl_module.device, self.decay)

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Put the averaged weights in place; they are exchanged again after validation."""
        self._match(pl_module)
        super().on_validation_epoch_start(trainer, pl_module)
        self._is_exchanged = self._average_model is not None

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Put the trained weights back."""
        super().on_validation_epoch_end(trainer, pl_module)
        self._is_exchanged = False

    def on_test_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Do the same for a test in the middle of training."""
        if trainer.state.fn == "fit":
            self.on_validation_epoch_start(trainer, pl_module)

    def on_test_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Put the trained weights back."""
        if self._is_exchanged:
            self.on_validation_epoch_end(trainer, pl_module)

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Put the trained weights back where a validation broke off: what is saved then knows which are which."""
        if self._is_exchanged:
            self.on_validation_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Leave the averaged weights in the model."""
        self._match(pl_module)
        super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the averaged weights as the model's, and the raw ones beside them."""
        self._match(pl_module)
        super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def _match(self, module: nn.Module) -> None:
        if isinstance(self._average_model, _TrainedAverage):
            self._average_model.match(module)


class _TrainedAverage(AveragedModel):
    """An average of the trained parameters alone: frozen encoders are most of a model, and never change."""

    def __init__(self, model: nn.Module, device: Any, decay: float | int) -> None:
        super().__init__(model, device=device, use_buffers=False)
        self._decay = decay
        self._has_begun = False
        for average, weight in zip(self.module.parameters(), model.parameters(), strict=True):
            if weight.requires_grad and weight.dtype in (torch.float16, torch.bfloat16):
                average.data = average.data.float()  # 1 - decay would be lost in rounding

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        pairs = zip(self.module.parameters(), model.parameters(), strict=True)
        trained = [(average, weight) for average, weight in pairs if weight.requires_grad]
        averages: list[Tensor] = [average.detach() for average, _ in trained]
        weights: list[Tensor] = [weight.detach().to(average) for average, weight in trained]
        torch._foreach_lerp_(averages, weights, 1.0 - self._decay if self._begun() else 1.0)
        self.n_averaged += 1

    @torch.no_grad()
    def match(self, model: nn.Module) -> None:
        """Take over what is not averaged: buffers, and the weights, too, as long as nothing has been averaged."""
        for copy, buffer in zip(self.module.buffers(), model.buffers(), strict=True):
            copy.copy_(buffer)
        if not self._begun():
            for average, weight in zip(self.module.parameters(), model.parameters(), strict=True):
                average.copy_(weight)

    def _begun(self) -> bool:
        # Asked of the tensor, for which a device is waited for, only until the first update.
        self._has_begun = self._has_begun or int(self.n_averaged) > 0
        return self._has_begun
