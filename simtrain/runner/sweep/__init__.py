"""Sweeps: the same job with other settings, many times, until the best is known."""

from simtrain.runner.sweep.sweep import SweepResult, TrialResult, sweep
from simtrain.runner.sweep.sweep_config import SweepConfig, load_sweep

__all__ = ["SweepConfig", "SweepResult", "TrialResult", "load_sweep", "sweep"]
