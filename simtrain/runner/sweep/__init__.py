"""Sweeps: the same job with other settings, many times, until the best is known."""

from simtrain.runner.sweep.result import SweepResult, TrialResult
from simtrain.runner.sweep.sweep_config import SweepConfig, load_sweep
from simtrain.runner.sweep.trials import sweep

__all__ = ["SweepConfig", "SweepResult", "TrialResult", "load_sweep", "sweep"]
