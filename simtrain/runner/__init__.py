"""Loops: the runner, and whole jobs from a config."""

from simtrain.runner.cached_train_loop import CachedTrainLoop
from simtrain.runner.job import FitResult, fit
from simtrain.runner.runner import Runner
from simtrain.runner.train_loop import TrainLoop

__all__ = ["CachedTrainLoop", "FitResult", "Runner", "TrainLoop", "fit"]
