"""What counts alike in a mean over queries: queries, or their relevant items."""

from __future__ import annotations

from typing import Literal, get_args

from simtrain.errors import ConfigError, nearest

KnownAverage = Literal["macro", "micro"]
Average = KnownAverage | str  # names come from configs, too


def checked_average(average: Average) -> Average:
    """Return the name of an average.

    Raises:
        ConfigError: It is not known.
    """
    if average not in get_args(KnownAverage):
        raise ConfigError(f"unknown average {average!r}; {nearest(str(average), get_args(KnownAverage))}")
    return average
