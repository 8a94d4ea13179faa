"""Saves a run: the best, the last, at intervals, and where it breaks off."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from simtrain.errors import CheckpointError, ConfigError, nearest
from simtrain.runner.checkpoints.checkpoint_file import MARK, read_run, remove_drafts
from simtrain.runner.checkpoints.interval import Interval
from simtrain.runner.checkpoints.monitors import directions
from simtrain.runner.checkpoints.resume_source import ON_EXCEPTION
from simtrain.runner.checkpoints.run_state import Place
from simtrain.runner.checkpoints.saved_checkpoints import SavedCheckpoint, SavedCheckpoints

logger = logging.getLogger("simtrain")

LAST, BEST = "last.ckpt", "best.ckpt"
DEFAULT_MONITOR = "validation_loss"


class CheckpointCallback(Checkpoint):
    """Saves checkpoints from which a run goes on exactly, and keeps the best and the newest of them.

    A file is called ``epoch=3-step=120.ckpt``: after three epochs, and 120 optimizer steps. ``last.ckpt`` is another
    name of the newest one, ``best.ckpt`` of the best one by the first monitor. Both come into being after the epoch's
    validation, so that they are of the weights that were measured.

    A file holds the whole ``state_dict``, frozen encoders included: ``load_from_checkpoint``, :meth:`Runner.load_best`
    and ``load_checkpoint`` take it as all weights of the model, and would miss what is left out.

    Args:
        folder: Where the files go.
        monitor: Figure by which the best are kept, or figure → whether more is better; None says that its name tells
            (``validation_loss``: less is better, ``mrr_validation``: more is). Default: ``validation_loss``, where it
            is logged.
        topk: How many of the best are kept for each figure.
        last: How many of the newest are kept: with two, one is whole where the other is damaged. None keeps all.
        begin_epoch: First epoch that is saved, counted from one. Default: ``epoch_interval``.
        epoch_interval: Epochs from one save to the next; None for no saves by epoch. The last epoch is always saved.
        begin_step: First optimizer step that is saved. Default: ``step_interval``.
        step_interval: Optimizer steps from one save to the next; None for no saves by step.
        on_exception: Save, too, where an exception breaks the run off. It comes from the middle of a step, so that the
            run cannot go on from it to the bit: ``resume_from=auto`` leaves it alone. It goes when the run has ended.

    Raises:
        ConfigError: A number is out of its range, or the name of a figure does not tell its direction.

    Example:
        >>> CheckpointCallback("runs/a/checkpoints", monitor="mrr_validation").monitors
        {'mrr_validation': True}
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        monitor: str | Mapping[str, bool | None] | None = None,
        topk: int = 3,
        last: int | None = 2,
        begin_epoch: int | None = None,
        epoch_interval: int | None = 1,
        begin_step: int | None = None,
        step_interval: int | None = None,
        on_exception: bool = True,
    ) -> None:
        _check_numbers(topk=(topk, 0), begin_epoch=(begin_epoch, 1), begin_step=(begin_step, 1))
        _check_numbers(epoch_interval=(epoch_interval, 1), step_interval=(step_interval, 1), last=(last, 1))
        self.monitors = directions(monitor or DEFAULT_MONITOR)
        self._is_default, self.folder = monitor is None, Path(folder)
        self.epochs = Interval(begin_epoch or epoch_interval, epoch_interval)
        self.steps = Interval(begin_step or step_interval, step_interval)
        self.saves_on_exception = on_exception
        self.saved = SavedCheckpoints(self.monitors, topk, last)
        self._scores: dict[str, float] = {}
        self._of_validation: set[str] = set()
        self._latest_step, self._is_proven = 0, False

    @property
    def best_model_path(self) -> str:
        """Path of the best checkpoint by the first monitor; empty for none."""
        best = self.saved.best(next(iter(self.monitors)))
        return "" if best is None else str(self.folder / best.file)

    @property
    def last_model_path(self) -> str:
        """Path of the newest checkpoint; empty for none."""
        return "" if self.saved.newest is None else str(self.folder / self.saved.newest.file)

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Make the folder: a run has begun."""
        if stage == "fit" and trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_drafts(self.folder)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Count from where the run begins; one that begins anew puts aside what another has left in the folder."""
        self._latest_step = trainer.global_step
        if trainer.ckpt_path is None:
            self.saved.load_state_dict([], [])
            if trainer.is_global_zero:
                self._put_aside()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Remove what was saved where the run broke off before: it has ended after all."""
        if trainer.is_global_zero:
            for file in self.folder.glob(f"{ON_EXCEPTION}*.ckpt"):
                file.unlink(missing_ok=True)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take the monitored figures of this validation, for the checkpoint of these weights."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        figures = trainer._logger_connector.metrics["callback"]
        self._scores = {name: float(figures[name]) for name in self.monitors if name in figures}
        self._of_validation.update(self._scores)

    def on_place(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, place: Place) -> None:
        """Save, where it is time to, or where the weights are among the best."""
        if place == "epoch":
            self._take_training_figures(trainer)
        due = self._is_due(trainer, place) or self.saved.wants(self._scores)
        self._latest_step = trainer.global_step
        # Of several processes the first one decides: their figures may differ in the last bit.
        if trainer.world_size > 1:
            due = trainer.strategy.broadcast(due)
        if due:
            self.save(trainer)
        self._scores = {}  # of these weights alone

    def n_before_place(self, trainer: lightning.Trainer) -> float | int:
        """How many batches may go by before :meth:`on_place` has anything to do."""
        if self._scores:
            return 1
        window = trainer.accumulate_grad_batches
        ahead = self.steps.ahead(trainer.global_step)
        return ahead * window - trainer.fit_loop.epoch_loop.batch_progress.current.ready % window

    def save(self, trainer: lightning.Trainer) -> None:
        """Save now; the run has to be at a place between two batches or two epochs."""
        epoch, step = _epochs_over(trainer), trainer.global_step
        new = SavedCheckpoint(f"epoch={epoch}-step={step}.ckpt", epoch, step, self._scores)
        outdated = self.saved.add(new)
        for each in trainer.loggers:
            each.save()
        trainer.save_checkpoint(self.folder / new.file, weights_only=False)
        if trainer.is_global_zero:
            self._prove(self.folder / new.file)
            self._name(new, LAST)
            best = self.saved.best(next(iter(self.monitors)))
            if best is not None:
                self._name(best, BEST)
            for one in outdated:
                (self.folder / one.file).unlink(missing_ok=True)

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Save what there is; whatever goes wrong here must not hide the exception."""
        # A signal has been waited with until the run was at a place, and is saved.
        if not self.saves_on_exception or isinstance(exception, SIGTERMException) or not trainer.is_global_zero:
            return
        if trainer.state.fn != "fit" or not trainer.optimizers:
            return
        file = self.folder / f"{ON_EXCEPTION}{type(exception).__name__}.ckpt"
        try:
            # Not by way of the trainer, which would wait for the other processes.
            trainer.strategy.checkpoint_io.save_checkpoint(trainer._checkpoint_connector.dump_checkpoint(False), file)
            logger.error("%s broke the run off; its state is in %s", type(exception).__name__, file)
        except Exception:
            logger.exception("%s broke the run off, and its state could not be saved", type(exception).__name__)

    def state_dict(self) -> dict[str, Any]:
        """Which checkpoints there are."""
        return {"saved": self.saved.state_dict(), "of_validation": sorted(self._of_validation)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over those that are in this run's folder."""
        files = [file.name for file in self.folder.glob("*.ckpt")]
        self.saved.load_state_dict(state_dict["saved"], files)
        self._of_validation = set(state_dict["of_validation"])

    def _is_due(self, trainer: lightning.Trainer, place: Place) -> bool:
        if trainer.received_sigterm or self.steps.passed(self._latest_step, trainer.global_step):
            return True
        epoch = _epochs_over(trainer)
        return place == "epoch" and (_is_over(trainer) or self.epochs.passed(epoch - 1, epoch))

    def _take_training_figures(self, trainer: lightning.Trainer) -> None:
        figures = trainer.callback_metrics
        for name in self.monitors:
            if name not in self._of_validation and name in figures:
                self._scores[name] = float(figures[name])
            elif name not in self._of_validation and not self._is_default:
                raise ConfigError(f"checkpoint.monitor {name!r} is not logged by this run; {nearest(name, figures)}")

    def _put_aside(self) -> None:
        files = list(self.folder.glob("*.ckpt"))
        if not files:
            return
        name, count = f"{self.folder.name}-previous", 1
        while (previous := self.folder.with_name(name if count == 1 else f"{name}-{count}")).exists():
            count += 1
        previous.mkdir()
        for file in files:
            os.replace(file, previous / file.name)
        logger.warning("this run begins anew: the checkpoints of the run before it are in %s", previous)

    def _prove(self, file: Path) -> None:
        if self._is_proven:
            return
        try:
            read_run(file)
        except CheckpointError as error:
            raise CheckpointError(
                f"this run's checkpoints could not be loaded again, so that it stops now: {error}. What callbacks and "
                f"modules give as their state has to be tensors and plain values"
            ) from error
        self._is_proven = True

    def _name(self, saved: SavedCheckpoint, name: str) -> None:
        draft = self.folder / f"{name}{MARK}{secrets.token_hex(6)}"
        try:
            os.link(self.folder / saved.file, draft)
        except OSError:  # a file system without links
            shutil.copyfile(self.folder / saved.file, draft)
        os.replace(draft, self.folder / name)
        draft.unlink(missing_ok=True)  # renaming to another name of the same file does nothing


def _epochs_over(trainer: lightning.Trainer) -> int:
    progress: Any = trainer.fit_loop.epoch_progress.current
    return int(progress.processed)


def _is_over(trainer: lightning.Trainer) -> bool:
    epochs, most = trainer.max_epochs, trainer.max_steps
    all_epochs = epochs not in (None, -1) and _epochs_over(trainer) >= epochs
    return bool(trainer.should_stop or all_epochs or (most != -1 and trainer.global_step >= most))


def _check_numbers(**given: tuple[int | None, int]) -> None:
    for name, (value, least) in given.items():
        if value is not None and value < least:
            raise ConfigError(f"{name} of the checkpoints should be at least {least}, got {value}")
