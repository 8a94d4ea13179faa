"""One training step without the parts of a trainer's step that do nothing in this run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.core.hooks import DataHooks
from lightning.pytorch.loops.optimization.automatic import Closure
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.utils.data import DataLoader

from simtrain.runner.deferred_figures import DeferredFigures
from simtrain.training import TrainableModel
from simtrain.training.cached_step import CachedStep
from simtrain.training.trainer_steps import TrainerSteps

#: Hooks of a step that are called where a callback or the model has its own.
HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
#: Methods of a model that a lean step does not call.
REPLACED = ("optimizer_step", "optimizer_zero_grad", "backward", "on_train_batch_start")
#: Hooks that move a batch → who has the one that does nothing.
TRANSFER: dict[str, type] = {
    "on_before_batch_transfer": DataHooks,
    "transfer_batch_to_device": TrainableModel,
    "on_after_batch_transfer": DataHooks,
}


class LeanStep:
    """A step with everything that Lightning's own does in this run, in the same order, and nothing else.

    Hooks are looked up once, counters are kept after each step, figures wait in :class:`DeferredFigures`.

    Args:
        trainer: The trainer, in ``fit``.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.module = trainer, trainer.lightning_module
        self.epoch_loop, self.connector = trainer.fit_loop.epoch_loop, trainer._logger_connector
        self.optimizer, self.window = trainer.optimizers[0], trainer.accumulate_grad_batches
        self.progress = self.epoch_loop.batch_progress
        self.optim_progress = self.epoch_loop.automatic_optimization.optim_progress.optimizer
        # Torch's own call it once, before anything else, but for LBFGS.
        kind = type(self.optimizer)
        usual = kind.__module__.startswith("torch.optim.") and kind is not torch.optim.LBFGS
        self.needs_closure = not usual or bool(self.optimizer._optimizer_step_pre_hooks)
        self.hooks = {name: _own_hooks(trainer, name) for name in HOOKS}
        self.moves = any(_overrides(self.module, name, base) for name, base in TRANSFER.items())
        usual_steps = not self.moves and CachedStep.suits(self.module)
        self.training_step = (
            CachedStep(self.module, self.connector.defer_step) if usual_steps else self.module.training_step
        )
        self.context = _context(trainer.precision_plugin)
        clips = type(self.module).configure_gradient_clipping is not TrainerSteps.configure_gradient_clipping
        self.clips = clips or bool(trainer.gradient_clip_val)
        # Properties of a trainer that look further each time.
        self.has_loggers, self.has_schedules = bool(trainer.loggers), bool(trainer.lr_scheduler_configs)
        self.batch: Any = None
        self.batch_idx = 0
        self.outputs: dict[str, Any] = {}

    def run(self, fetcher: Any, count: int) -> None:
        """Train on so many batches, none of which ends the epoch or calls for validation.

        It stops early where training is told to stop. What follows the last batch is left to the epoch loop.
        """
        module, trainer = self.module, self.trainer
        before, module._current_fx_name = module._current_fx_name, "training_step"
        module._log_later = self.connector.defer
        self.connector._first_loop_iter = False
        fetch = _fetch(fetcher)
        try:
            for left in reversed(range(count)):
                self._train_on(fetch())
                if left == 0 or trainer.should_stop or trainer.received_sigterm:
                    break
                self._after_batch()
        finally:
            module._log_later = None
            module._current_fx_name = before
        self.connector.on_batch_end()

    def _train_on(self, batch: Any) -> None:
        progress, results = self.progress, self.epoch_loop._results
        self.batch_idx = progress.current.ready
        self.batch = batch = self._moved(batch) if self.moves else batch
        progress.increment_ready()
        results.batch, results.batch_size, results.dataloader_idx = batch, None, None
        self._call("on_train_batch_start", batch, self.batch_idx)
        progress.increment_started()
        if (self.batch_idx + 1) % self.window:
            self._closure()
        else:
            self.optim_progress.step.increment_ready()
            self._step()
            self.optim_progress.step.increment_completed()
        progress.increment_processed()
        if self.has_schedules:
            self.epoch_loop.update_lr_schedulers("step", update_plateau_schedulers=False)
        self._call("on_train_batch_end", self.outputs, batch, self.batch_idx)
        results.batch = results.batch_size = self.batch = None
        progress.increment_completed()
        if self.has_loggers:
            self.connector.update_train_step_metrics()

    def _step(self) -> None:
        if self.needs_closure:
            self.optimizer.step(closure=self._stepping_closure)
        else:
            self._stepping_closure()
            self.optimizer.step()

    def _closure(self) -> Tensor | None:
        if self.context is nullcontext:
            results = self.training_step(self.batch, self.batch_idx)
        else:
            with self.context():
                results = self.training_step(self.batch, self.batch_idx)
        loss = None if results is None else results["loss"]
        if loss is None:
            message = "`training_step` returned `None`. If this was on purpose, ignore this warning..."
            Closure.warning_cache.warn(message)  # Lightning's own words, which it says once
        elif self.window > 1:
            loss = loss / self.window
        if self.hooks["on_train_batch_end"]:
            extra = {} if results is None else {name: value for name, value in results.items() if name != "loss"}
            self.outputs = {} if loss is None else {"loss": loss.detach().clone(), **extra}
        if self.batch_idx % self.window == 0:
            self._zero_grad()
        if loss is not None:
            self._call("on_before_backward", loss)
            loss.backward()
            self._call("on_after_backward")
        return loss

    def _stepping_closure(self) -> Tensor | None:
        loss = self._closure()
        self._call("on_before_optimizer_step", self.optimizer)
        if self.clips:
            self._clip()
        return loss

    def _zero_grad(self) -> None:
        self.optim_progress.zero_grad.increment_ready()
        self._call("on_before_zero_grad", self.optimizer)
        self.optim_progress.zero_grad.increment_started()
        self.optimizer.zero_grad()
        self.optim_progress.zero_grad.increment_completed()

    def _clip(self) -> None:
        self.module._current_fx_name = "configure_gradient_clipping"
        self.module.configure_gradient_clipping(
            self.optimizer,
            gradient_clip_val=self.trainer.gradient_clip_val,
            gradient_clip_algorithm=self.trainer.gradient_clip_algorithm,
        )
        self.module._current_fx_name = "training_step"

    def _after_batch(self) -> None:
        if self.has_schedules:
            self.epoch_loop.update_lr_schedulers("step", update_plateau_schedulers=True)
        if (self.batch_idx + 1) % self.window == 0:
            self.epoch_loop._batches_that_stepped += 1

    def _moved(self, batch: Any) -> Any:
        batch = self.module._on_before_batch_transfer(batch, dataloader_idx=0)
        return self.trainer.strategy.batch_to_device(batch, dataloader_idx=0)

    def _call(self, name: str, *args: Any) -> None:
        hooks = self.hooks[name]
        if hooks:
            # By hand: a module's own way to set what is neither parameter nor buffer takes ten times as long.
            object.__setattr__(self.module, "_current_fx_name", name)
            for hook in hooks:
                hook(*args)
            object.__setattr__(self.module, "_current_fx_name", "training_step")


def obstacle(trainer: Any) -> str | None:
    """Why steps have to be Lightning's own in this run; None where lean ones do the same."""
    module, precision = trainer.lightning_module, trainer.precision_plugin
    if not isinstance(trainer._logger_connector, DeferredFigures):
        return "the trainer has another logger connector"
    if type(trainer.strategy) is not SingleDeviceStrategy:
        return f"the strategy is {type(trainer.strategy).__name__}"
    if type(precision) not in (Precision, MixedPrecision) or getattr(precision, "scaler", None) is not None:
        return f"the precision is {precision.precision}"
    if not isinstance(trainer.profiler, PassThroughProfiler):
        return "a profiler is at work"
    if not module.automatic_optimization or len(trainer.optimizers) != 1:
        return "the model updates its parameters itself"
    if trainer.fit_loop._skip_backward or trainer.fast_dev_run or trainer.datamodule is not None:
        return "the trainer has settings of its own"
    if module._compiler_ctx is not None:
        return "the model is compiled"
    for name in REPLACED:
        if _overrides(module, name, LightningModule, TrainerSteps):
            return f"{type(module).__name__} has its own {name}"
    return None


def _fetch(fetcher: Any) -> Callable[[], Any]:
    """What gives the next batch: the loader's own iterator, where nothing is combined and nothing waits."""
    combined = fetcher.iterator
    iterators = getattr(getattr(combined, "_iterator", None), "iterators", None)
    if fetcher.batches or not isinstance(getattr(combined, "iterables", None), DataLoader) or not iterators:
        return lambda: next(fetcher)[0]
    batches, mode = iterators[0], combined._iterator

    def fetch() -> Any:
        try:
            batch = next(batches)
        except StopIteration:
            fetcher.done = True
            raise
        fetcher.fetched += 1
        mode._idx += 1
        return batch

    return fetch


def _context(precision: Any) -> Callable[[], AbstractContextManager[None]]:
    return nullcontext if type(precision) is Precision else precision.train_step_context


def _own_hooks(trainer: Any, name: str) -> list[Callable[..., Any]]:
    module = trainer.lightning_module
    own = [callback for callback in trainer.callbacks if _overrides(callback, name, Callback)]
    hooks: list[Callable[..., Any]] = [partial(getattr(callback, name), trainer, module) for callback in own]
    # What TrainerSteps does before an optimizer step is for streams, and for models that update parameters themselves.
    return [*hooks, getattr(module, name)] if _overrides(module, name, LightningModule, TrainerSteps) else hooks


def _overrides(part: Any, name: str, *bases: type) -> bool:
    function = getattr(getattr(part, name), "__func__", None)
    return all(function is not getattr(base, name, None) for base in bases)
