"""The stages of training."""

from __future__ import annotations

from enum import Enum


class TrainStage(str, Enum):
    """Stage that a step belongs to; its value is the word used in logged names (``train_loss``).

    Example:
        >>> f"{TrainStage.VALIDATION}_loss"
        'validation_loss'
    """

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"

    # Without this, formatting gives "TrainStage.TRAIN" from Python 3.11 on and logged names would change.
    def __str__(self) -> str:
        return self.value

    def __format__(self, format_spec: str) -> str:
        return format(self.value, format_spec)
