"""What ``lightning.Trainer`` calls, in terms of the contract's steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from simtrain.data.transfer import move_to
from simtrain.errors import ConfigError, ContractError
from simtrain.training.gradient_clipping import gradient_norm
from simtrain.training.lightning_optim_wrapper import LightningOptimWrapper, step_schedule
from simtrain.training.parameter_groups import regroup
from simtrain.training.stages import TrainStage
from simtrain.training.step_contract import (
    call_step,
    check_result,
    check_training_result,
    figures,
    wants_optim_wrapper,
)
from simtrain.training.step_count import n_optimizer_steps

MakeOptimizer = Callable[[list[nn.Parameter]], Optimizer]
MakeScheduler = Callable[[Optimizer, int], Any]


class TrainerSteps(lightning.LightningModule):
    """The hooks of a ``lightning.Trainer``, for a class that has the steps of the contract.

    Attributes:
        make_optimizer: Function from the trainable parameters to an optimizer; default: AdamW with rate 1e-3.
        make_scheduler: Function from ``(optimizer, total steps)`` to a schedule that is stepped after each optimizer
            step; default: none.
        optim_wrapper_cfg: Arguments of :class:`~simtrain.training.OptimWrapper` (``accumulative_counts``,
            ``clip_grad``) for a ``train_step`` that updates the parameters itself.
    """

    train_step: Callable[..., Any]
    valid_step: Callable[..., Any]

    def _prepare_for_trainer(self) -> None:
        self.make_optimizer: MakeOptimizer | None = None
        self.make_scheduler: MakeScheduler | None = None
        self.optim_wrapper_cfg: dict[str, Any] = {}
        self._optim_wrapper: list[LightningOptimWrapper] | None = None
        self._collected: list[dict[str, Any]] | None = None
        self._in_test_step = False
        #: Told of a training loss that is not finite, with its batch and number; gives what goes backward instead.
        self.on_nonfinite_loss: Callable[[Tensor, Any, int], Tensor] | None = None
        #: What takes figures in place of :meth:`log`, while a loop that logs later is at work.
        self._log_later: Callable[..., None] | None = None
        # A train_step that asks for an optim_wrapper is one that updates the parameters.
        self.automatic_optimization = not wants_optim_wrapper(self.train_step)

    def setup_dataloader(self, dataloader: DataLoader[Any]) -> DataLoader[Any]:
        """Prepare a loader for this model; a model that asks for nothing gets it back as it is."""
        return dataloader

    def configure_optimizers(self) -> Any:
        """Optimizer and schedule for ``lightning.Trainer``: :attr:`make_optimizer` and :attr:`make_scheduler`."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if not parameters:
            raise ConfigError(f"nothing can be trained: {type(self).__name__} has no parameters, or all are frozen")
        optimizer = self._optimizer_of(parameters)
        groups = getattr(self.make_optimizer, "parameter_groups", None)
        if groups:
            regroup(optimizer, self.named_parameters(), groups)
        return self.with_schedule(optimizer)

    def with_schedule(self, optimizer: Optimizer) -> Any:
        """An optimizer with the schedule of :attr:`make_scheduler`, in the form that Lightning takes.

        Raises:
            ConfigError: There is a schedule, but no trainer that knows the number of steps.
        """
        if self.make_scheduler is None:
            return optimizer
        if self._trainer is None:
            raise ConfigError("a schedule needs the number of steps: call this under a trainer, or leave out scheduler")
        schedule = self.make_scheduler(optimizer, n_optimizer_steps(self))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _optimizer_of(self, parameters: list[nn.Parameter]) -> Optimizer:
        return (self.make_optimizer or _adamw)(parameters)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip gradients that were scaled till now; mend those of a last window whose length was not known."""
        if self.automatic_optimization:
            self._mend_window()
            return
        for wrapper in self._wrappers:
            if wrapper.is_scaled and wrapper.param_groups is optimizer.param_groups:
                wrapper.clip()

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | int | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Log the norm of all gradients together as ``train_grad_norm``, and clip them, where clipping is asked for."""
        if not gradient_clip_val:
            return
        self._log_norm(gradient_norm(self.parameters()))
        self.clip_gradients(
            optimizer, gradient_clip_val=gradient_clip_val, gradient_clip_algorithm=gradient_clip_algorithm
        )

    def on_train_epoch_end(self) -> None:
        """Step the schedules by epoch of a ``train_step`` that updates the parameters itself."""
        if self.automatic_optimization or self._optim_wrapper is None:
            return
        for config in self.trainer.lr_scheduler_configs:
            if config.interval == "epoch" and (self.current_epoch + 1) % config.frequency == 0:
                step_schedule(config.scheduler)

    def on_fit_end(self) -> None:
        """Let go of the trainer's optimizers."""
        self._optim_wrapper = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the gradients that a ``train_step`` with an ``optim_wrapper`` has accumulated."""
        if self._optim_wrapper is not None:
            checkpoint["optim_wrappers"] = [wrapper.collected() for wrapper in self._wrappers]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep them until there are optimizers again."""
        self._collected = checkpoint.get("optim_wrappers")

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Lightning's name of ``train_step``: checks what it returns, and logs its scalars as ``train_<name>``."""
        offered: dict[str, Any] = {"batch_idx": batch_idx}
        if not self.automatic_optimization:
            self._count_batches(batch_idx)
            offered["optim_wrapper"] = self._wrappers if len(self._wrappers) > 1 else self._wrappers[0]
        results = call_step(self.train_step, batch, **offered)
        backward = self._checked_result(results, batch, batch_idx)
        self._log_figures(results, batch, TrainStage.TRAIN)
        if not self.automatic_optimization:
            for wrapper in self._wrappers:
                self._log_norm(wrapper.grad_norm)
            return None
        if backward is None:
            return None
        share = self._share_of_window(batch_idx)
        return backward if share == 1.0 else {**backward, "loss": backward["loss"] * share}

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Lightning's name of ``valid_step``; the scalars of a dict are logged as ``validation_<name>``."""
        offered = {"batch_idx": batch_idx, "dataloader_idx": dataloader_idx, "optim_wrapper": None}
        results = call_step(self.valid_step, batch, **offered)
        check_result(results, f"{type(self).__name__}.valid_step")
        self._log_figures(results, batch, TrainStage.VALIDATION)
        return results

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log the scalars of a test step's dict as ``test_<name>``: here, as ``test_step`` is the user's own."""
        check_result(outputs, f"{type(self).__name__}.test_step")
        self._log_figures(outputs, batch, TrainStage.TEST)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move the tensors of a batch, in any nesting."""
        return move_to(batch, device)

    def _checked_result(self, results: Any, batch: Any, batch_idx: int) -> Any:
        """What a training step returned, as it is to go backward."""
        name, tell = f"{type(self).__name__}.train_step", self.on_nonfinite_loss
        is_finite = check_training_result(results, name, self.automatic_optimization, raises=tell is None)
        if is_finite or tell is None:
            return results
        return {**results, "loss": tell(results["loss"], batch, batch_idx)}

    def _log_figures(self, results: Any, batch: Any, stage: TrainStage) -> None:
        training = stage is TrainStage.TRAIN
        log = self._log_later or self.log
        for name, value in figures(results).items():
            figure = _figure(value)
            try:
                log(
                    f"{stage}_{name}",
                    figure,
                    batch_size=1 if training else self._rows(batch, results),
                    prog_bar=name == "loss",
                    on_step=training,
                    on_epoch=not training,
                    sync_dist=not training,
                )
            except MisconfigurationException as error:
                raise ContractError(
                    f"{type(self).__name__} logs '{stage}_{name}' itself, in another way than it is logged from the "
                    f"step's result; leave out one of them, or give one another name"
                ) from error

    def _rows(self, batch: Any, results: Any) -> int:
        # The weight of a batch in the mean over an epoch.
        return _rows(batch) or 1

    def _share_of_window(self, batch_idx: int) -> float:
        # Lightning divides every loss by the number of accumulated batches, also in a last window that has fewer.
        window, batches = self.trainer.accumulate_grad_batches, self.trainer.num_training_batches
        if window == 1 or math.isinf(batches) or batch_idx < batches - batches % window:
            return 1.0
        return window / (batches % window)

    def _mend_window(self) -> None:
        # The end of a stream shows only at its last batch, when the window's other batches have gone backward already.
        window, batches = self.trainer.accumulate_grad_batches, self.trainer.num_training_batches
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        missing = -progress.current.ready % window
        if math.isinf(batches) and progress.is_last_batch and missing:
            gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
            torch._foreach_mul_(gradients, window / (window - missing))

    def _count_batches(self, batch_idx: int) -> None:
        batches = self.trainer.num_training_batches
        total = -1 if math.isinf(batches) else int(batches)
        ends_stream = total == -1 and self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        for wrapper in self._wrappers:
            if batch_idx == 0 or not wrapper.knows_its_batches:
                wrapper.initialize_count_status(self, batch_idx, total)
            if ends_stream:
                wrapper.initialize_count_status(self, batch_idx, batch_idx + 1)

    @property
    def _wrappers(self) -> list[LightningOptimWrapper]:
        # Made when first asked for (hooks of a model's own need not call these here), and anew for other optimizers:
        # a run that broke off has left its own behind.
        given: Any = self.optimizers()
        optimizers = given if isinstance(given, list) else [given]
        known = self._optim_wrapper or []
        if [id(wrapper.param_groups) for wrapper in known] == [id(one.param_groups) for one in optimizers]:
            return known
        made = [LightningOptimWrapper(self, optimizer, **self.optim_wrapper_cfg) for optimizer in optimizers]
        for wrapper, state in zip(made, self._collected or [], strict=False):
            wrapper.restore_collected(state)
        self._collected, self._optim_wrapper = None, made
        return made

    def _log_norm(self, norm: Tensor | None) -> None:
        if norm is not None:
            log = self._log_later or self.log
            log(f"{TrainStage.TRAIN}_grad_norm", norm.detach(), batch_size=1, on_step=True)


def for_trainer(step: Callable[..., Any]) -> Callable[..., Any]:
    """Let a ``test_step`` of any form be called by ``lightning.Trainer``, which has a method of that name, too.

    Lightning gives the number of the batch (and of the loader) by position, so that it would end up in whatever
    parameter comes second. Under a trainer the outermost step gets them by name; all other calls go through as they
    are.
    """

    def test_step(self: TrainerSteps, data_batch: Any, *args: Any, **kwargs: Any) -> Any:
        trainer = self._trainer
        if trainer is None or not trainer.testing or self._in_test_step:
            return step(self, data_batch, *args, **kwargs)
        self._in_test_step = True
        try:
            offered = dict(zip(("batch_idx", "dataloader_idx"), args, strict=False))
            return call_step(step.__get__(self), data_batch, optim_wrapper=None, **offered, **kwargs)
        finally:
            self._in_test_step = False

    test_step.for_trainer = True  # type: ignore[attr-defined]
    # Not functools.wraps: Lightning would look through it, see the form of the inner step, and give it less.
    test_step.__doc__, test_step.__qualname__, test_step.__module__ = step.__doc__, step.__qualname__, step.__module__
    return test_step


def _figure(value: Any) -> Tensor | float:
    if not isinstance(value, Tensor):
        return float(value)
    # Counts are figures, too; Lightning takes no whole numbers.
    return value.detach() if value.is_floating_point() else value.detach().float()


def _adamw(parameters: list[nn.Parameter]) -> Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3)


def _rows(data: Any) -> int:
    if isinstance(data, Tensor):
        return len(data) if data.ndim else 0
    if isinstance(data, Mapping):
        data = list(data.values())
    if isinstance(data, (list, tuple)):
        # Texts or numbers are the items themselves.
        return next((rows for rows in map(_rows, data) if rows), 0) or len(data)
    return 0
