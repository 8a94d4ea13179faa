"""Checks of the losses' constructor arguments: a wrong one is refused when the loss is built."""

from __future__ import annotations

import math
from collections.abc import Iterable

from simtrain.errors import ConfigError, nearest


def check_positive(owner: str, name: str, value: float | int, *, allow_zero: bool = False) -> float:
    """Return ``value`` as a float if it is a finite number above zero.

    Args:
        owner: Class whose setting it is, for the message.
        name: Name of the setting.
        value: What was given.
        allow_zero: Whether zero is accepted too.

    Raises:
        ConfigError: It is not a number, not finite, or too small.

    Example:
        >>> check_positive("TripletLoss", "margin", 1)
        1.0
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0 or (value == 0 and not allow_zero):
        rule = "zero or above" if allow_zero else "above zero"
        raise ConfigError(f"{owner}: {name} must be a finite number {rule}, got {value!r}")
    return float(value)


def check_choice(owner: str, name: str, value: str, accepted: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``accepted``.

    Raises:
        ConfigError: It is not; the message names the nearest accepted word.

    Example:
        >>> check_choice("TripletLoss", "mining", "hard", ["all", "hard"])
        'hard'
    """
    words = list(accepted)
    if value not in words:
        raise ConfigError(f"{owner}: unknown {name} {value!r}; {nearest(str(value), words)}")
    return value


def check_count(owner: str, name: str, value: int, least: int = 1) -> int:
    """Return ``value`` if it is a whole number, ``least`` or more.

    Raises:
        ConfigError: It is not.

    Example:
        >>> check_count("ArcFaceLoss", "sub_centers", 3)
        3
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{owner}: {name} must be a whole number, {least} or more, got {value!r}")
    return value
