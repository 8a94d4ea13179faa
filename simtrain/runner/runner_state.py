"""What a run tells of itself: to callbacks, to evaluators, to loops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader


class RunnerState:
    """Where a run is, and on what.

    The counts are read from the trainer at work when somebody asks: keeping them costs a step nothing. A loop of one's
    own, without a trainer, sets them.

    Attributes:
        epochs: Epochs there are to be.
        train_size: Samples in the training data; 0 for none, or for a stream. Likewise ``valid_size``, ``test_size``.
        run_timestamp: When the runner was made, as ``%Y-%m-%d_%H-%M-%S``.
        resume_from: Checkpoint that training goes on from; None for none.
        load_from: File that the first weights come from; None for none.
        activation_checkpoint: Patterns of the modules whose activations are computed again in the backward pass.
        device: Where the model is run.
        rank: Number of this process.
        world_size: Number of processes.
        is_main_process: This is the first of them.
        start_msg: How the run is started, in words.
        trainer: The trainer at work; None for none.
    """

    def __init__(self, model: nn.Module, epochs: int) -> None:
        self._model, self.epochs = model, epochs
        self.run_timestamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        self.train_size = self.valid_size = self.test_size = 0
        self.resume_from: str | None = None
        self.load_from: str | None = None
        self.activation_checkpoint: list[str] = []
        self.device = torch.device("cpu")
        self.rank, self.world_size, self.is_main_process, self.start_msg = 0, 1, True, ""
        self.trainer: lightning.Trainer | None = None
        self._counts = {"epoch": 0, "batch": 0, "step": 0, "iteration": 0}
        self._is_told_to_stop = False

    @property
    def current_epoch(self) -> int:
        """Epoch at work, from 1; 0 before training."""
        return self._now("epoch")

    @current_epoch.setter
    def current_epoch(self, count: int) -> None:
        self._counts["epoch"] = count

    @property
    def current_batch(self) -> int:
        """Batch of the epoch at work, from 1."""
        return self._now("batch")

    @current_batch.setter
    def current_batch(self, count: int) -> None:
        self._counts["batch"] = count

    @property
    def current_iteration(self) -> int:
        """Batch at work, counted over all epochs, from 1."""
        return self._now("iteration")

    @current_iteration.setter
    def current_iteration(self, count: int) -> None:
        self._counts["iteration"] = count

    @property
    def current_step(self) -> int:
        """Optimizer steps taken."""
        return self._now("step")

    @current_step.setter
    def current_step(self, count: int) -> None:
        self._counts["step"] = count

    @property
    def stop_training(self) -> bool:
        """Whether training is to stop before all epochs are done. Set it, and it does, after a last validation."""
        return self._is_told_to_stop or (self.trainer is not None and self.trainer.should_stop)

    @stop_training.setter
    def stop_training(self, stop: bool) -> None:
        self._is_told_to_stop = stop
        if self.trainer is not None:
            self.trainer.should_stop = stop

    @property
    def model_info(self) -> str:
        """The model as torch prints it."""
        return str(self._model)

    def describe(self, trainer: lightning.Trainer) -> None:
        """Note how a trainer is going to run."""
        self.device, self.world_size = trainer.strategy.root_device, trainer.world_size
        self.rank, self.is_main_process = trainer.global_rank, trainer.is_global_zero
        kind = type(trainer.strategy).__name__.removesuffix("Strategy")
        many = f", {trainer.world_size} processes ({kind})" if trainer.world_size > 1 else ""
        self.start_msg = f"on {self.device}{many}, precision {trainer.precision}"

    def size_up(self, **loaders: DataLoader[Any] | None) -> None:
        """Note how many samples there are for ``train``, ``valid`` and ``test``."""
        for stage, loader in loaders.items():
            dataset: Any = getattr(loader, "dataset", None)
            setattr(self, f"{stage}_size", len(dataset) if hasattr(dataset, "__len__") else 0)

    @contextmanager
    def of(self, trainer: lightning.Trainer) -> Iterator[None]:
        """A trainer is at work; afterwards its last counts stay, the trainer does not."""
        outer, self.trainer, self._is_told_to_stop = self.trainer, trainer, False
        try:
            yield
        finally:
            if trainer.state.fn == "fit":
                self._counts = _counts(trainer)
            self.trainer = outer

    def __deepcopy__(self, memo: dict[int, Any]) -> RunnerState:
        # An evaluator that is copied is told of the same run.
        return self

    def _now(self, word: str) -> int:
        trainer = self.trainer
        return self._counts[word] if trainer is None or trainer.state.fn != "fit" else _counts(trainer)[word]


def _counts(trainer: lightning.Trainer) -> dict[str, int]:
    loop = trainer.fit_loop
    batches = loop.epoch_loop.batch_progress
    return {
        "epoch": loop.epoch_progress.current.ready,
        "batch": batches.current.ready,
        "iteration": batches.total.ready,
        "step": trainer.global_step,
    }
