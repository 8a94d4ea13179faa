"""What a loop asks of the runner that it runs for."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import SingleDeviceStrategy
from omegaconf import DictConfig
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from simtrain import registry
from simtrain.config import plain
from simtrain.errors import ConfigError
from simtrain.runner.callbacks.nonfinite_guard import NonfiniteGuard
from simtrain.runner.checkpoints.checkpoint_callback import CheckpointCallback
from simtrain.runner.checkpoints.from_config import resumed_from
from simtrain.runner.config_loggers import logger_callbacks
from simtrain.runner.due_evaluations import DueEvaluations, Run, triggers_of
from simtrain.runner.evaluation_loops import ValidLoop
from simtrain.runner.lent_settings import settings_lent
from simtrain.runner.lifecycle import BatchLifecycle, Lifecycle
from simtrain.runner.lightning_trainer import lightning_trainer
from simtrain.runner.process_group_end import leaves_group_at_exit
from simtrain.runner.process_loaders import for_process
from simtrain.runner.quiet_lightning import quiet_lightning
from simtrain.runner.runner_base import RunnerBase
from simtrain.runner.runner_state import RunnerState
from simtrain.runner.stage_evaluators import StageEvaluators
from simtrain.runner.triggers import StageTriggers
from simtrain.training import BaseModel


class LoopSupport(RunnerBase):
    """The side of :class:`simtrain.Runner` that loops see: trainers, prepared loaders, the model's place."""

    model: BaseModel
    cfg: DictConfig
    epochs: int
    loaders: dict[str, DataLoader[Any] | None]
    loggers: list[Logger]
    state: RunnerState
    stage_evaluators: StageEvaluators
    lifecycle: Lifecycle
    checkpoints: CheckpointCallback | None
    valid_loop: Any
    test_loop: Any
    _given_optimizer: Optimizer | None

    @property
    def validates_by_trainer(self) -> bool:
        """Whether validation in training is Lightning's, and not a loop's of your own."""
        return self.loaders["valid"] is not None and type(self.valid_loop) is ValidLoop

    def prepared_loader(self, stage: str) -> DataLoader[Any]:
        """The loader of a stage as the model has prepared it.

        Args:
            stage: ``"train"``, ``"valid"`` or ``"test"``.

        Raises:
            ConfigError: There is none.
        """
        loader = self.loaders[stage]
        if loader is None:
            raise ConfigError(f"this runner has no {stage}_data_loader; pass one to use this stage")
        setup: Any = self.model.setup_dataloader
        # A setup_dataloader of the model's own may know nothing of stages.
        knows_stage = "training" in inspect.signature(setup).parameters
        prepared = setup(loader, training=stage == "train") if knows_stage else setup(loader)
        return self.wrap_dataloader(prepared)

    def place_model(self, trainer: lightning.Trainer | None = None) -> None:
        """Move the model to where a trainer is going to run it, so that caches are filled, and kept, there.

        Args:
            trainer: The trainer. Default: one such as :meth:`make_trainer` gives.
        """
        if trainer is None:
            with quiet_lightning():
                trainer = self.make_trainer()
        if type(trainer.strategy) is SingleDeviceStrategy:
            self.model.to(trainer.strategy.root_device)

    def resume_words(self) -> dict[str, Any]:
        """What ``trainer.fit`` is to be told of the checkpoint that the config asks to go on from.

        Raises:
            CheckpointError: It is missing or damaged.
        """
        path = resumed_from(self.cfg)
        return {} if path is None else {"ckpt_path": path}

    def make_trainer(self) -> lightning.Trainer:
        """A trainer as the config's section ``training`` asks for it, with all callbacks.

        Raises:
            ConfigError: It cannot be had on this machine.
        """
        self.lifecycle = (BatchLifecycle if self.has_batch_hooks else Lifecycle)(self)
        given = [callback for callback in self.callbacks if isinstance(callback, Callback)]
        callbacks = [*given, self._due_evaluations(), *self._own_callbacks(), self.lifecycle]
        by_trainer = self.model.automatic_optimization
        return lightning_trainer(self.cfg.training, self.epochs, callbacks, self.loggers, by_trainer)

    def _own_callbacks(self) -> list[Callback]:
        ema = self.cfg.training.ema
        averaging = [] if ema is None else [registry.callbacks.build({"type": "EMA", **plain(ema)})]
        evaluators = [self.stage_evaluators] if self.stage_evaluators.evaluators else []
        limit = self.cfg.training.nonfinite_limit
        guard = [] if limit is None else [NonfiniteGuard(limit)]
        kept = logger_callbacks(self.loggers)
        return [*guard, *averaging, *evaluators, *kept, *([] if self.checkpoints is None else [self.checkpoints])]

    def _due_evaluations(self) -> DueEvaluations:
        training = self.cfg.training
        own: list[tuple[StageTriggers, Run]] = []
        valid, test = triggers_of(training, "valid"), triggers_of(training, "test")
        if self.valid_loop is not None and not self.validates_by_trainer:
            own.append((valid, partial(self._run, "valid", self.valid_loop)))
        if self.test_loop is not None and test.is_ever_due:
            own.append((test, partial(self._run, "test", self.test_loop)))
        validate = partial(self._run, "valid", self.valid_loop) if self.validates_by_trainer else None
        return DueEvaluations(valid, validate, own)

    def _run(self, stage: str, loop: Any) -> Any:
        if loop is None:
            self.prepared_loader(stage)  # says what is missing
        with quiet_lightning(), settings_lent(self.model, self.cfg, self._given_optimizer):
            loop.runner = self
            outcome = loop.run()
        leaves_group_at_exit()
        return outcome

    def wrap_dataloader(self, dataloader: DataLoader[Any]) -> DataLoader[Any]:
        """A loader of this process's part of the data; see :func:`~simtrain.runner.process_loaders.for_process`.

        Returns:
            The loader itself where there is one process, or where its sampler knows of processes.
        """
        return for_process(dataloader, self.state.rank, self.state.world_size)
