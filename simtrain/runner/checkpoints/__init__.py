"""Checkpoints of runs, and going on from them exactly."""
