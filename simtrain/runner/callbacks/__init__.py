"""Callbacks of the runner's: for ``callbacks=`` and for configs."""

from simtrain.runner.callbacks.early_stop import EarlyStop
from simtrain.runner.callbacks.epoch_summary import EpochSummary
from simtrain.runner.callbacks.nonfinite_guard import NonfiniteGuard
from simtrain.runner.callbacks.progress import run_progress
from simtrain.runner.callbacks.step_monitor import StepMonitor
from simtrain.runner.callbacks.throughput import Throughput

__all__ = ["EarlyStop", "EpochSummary", "NonfiniteGuard", "StepMonitor", "Throughput", "run_progress"]
