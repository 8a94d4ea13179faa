"""Loops, callbacks, the runner that drives them, and whole jobs from a config."""

from simtrain.runner.base_callback import BaseCallBack
from simtrain.runner.cached_train_loop import CachedTrainLoop
from simtrain.runner.evaluation_loops import TestLoop, ValidLoop
from simtrain.runner.job import FitResult, fit
from simtrain.runner.runner import Runner
from simtrain.runner.runner_base import RunnerBase
from simtrain.runner.runner_state import RunnerState
from simtrain.runner.train_loop import TrainLoop

__all__ = [
    "BaseCallBack",
    "CachedTrainLoop",
    "FitResult",
    "Runner",
    "RunnerBase",
    "RunnerState",
    "TestLoop",
    "TrainLoop",
    "ValidLoop",
    "fit",
]
