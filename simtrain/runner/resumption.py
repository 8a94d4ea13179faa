"""Trainers whose checkpoints hold a run exactly."""

from __future__ import annotations

import lightning
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.trainer.states import RunningStage, TrainerFn

from simtrain.runner.checkpoints.checkpoint_file import DurableCheckpointIO
from simtrain.runner.logged_figures import LoggedFigures
from simtrain.runner.resumable_epoch_loop import WholeEvaluation
from simtrain.runner.resumable_fit_loop import ResumableFitLoop


def make_resumable(trainer: lightning.Trainer) -> None:
    """Give a trainer loops that can be left and entered exactly, and files that are written all at once.

    Args:
        trainer: A trainer that has not begun.
    """
    trainer.fit_loop = ResumableFitLoop(trainer)
    trainer._logger_connector = LoggedFigures(trainer)
    inference = trainer.test_loop.inference_mode
    trainer.test_loop = WholeEvaluation(trainer, TrainerFn.TESTING, RunningStage.TESTING, inference_mode=inference)
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = DurableCheckpointIO()
