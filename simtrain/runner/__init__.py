"""Loops: the runner, and whole jobs from a config."""

from simtrain.runner.job import FitResult, fit
from simtrain.runner.runner import Runner

__all__ = ["FitResult", "Runner", "fit"]
