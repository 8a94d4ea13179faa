"""The check of sizes given by users."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from simtrain.errors import ConfigError


def positive_size(name: str, value: Any) -> int:
    """Return ``value`` if it is a positive integer.

    Raises:
        ConfigError: It is not; the message uses ``name``.

    Example:
        >>> positive_size("embedding_size", 3)
        3
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ConfigError(f"{name} must be a positive integer, got {value!r}")
    return int(value)
