"""A figure that is watched: its value now, and whether more of it is better."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from simtrain.errors import ConfigError, nearest

#: Words in the name of a figure of which less is better; of any other, more is.
_LESS = ("loss", "error", "fnmr", "distance", "uniformity", "alignment", "perplexity", "mse", "mae")


def greater_is_better(name: str) -> bool:
    """Whether more of a figure is better, as its name tells.

    Example:
        >>> greater_is_better("validation_loss"), greater_is_better("recall@1_validation")
        (False, True)
    """
    words = re.split(r"[^a-z]+", name.lower())
    return not any(word in _LESS for word in words)


def value_of(name: str, figures: Mapping[str, Any], asker: str) -> float:
    """The value of a figure that something depends on.

    Args:
        name: The figure.
        figures: All that are there.
        asker: What depends on it, for the message.

    Raises:
        ConfigError: It is not there.

    Example:
        >>> value_of("loss", {"loss": 0.5}, "early stopping")
        0.5
    """
    if name not in figures:
        raise ConfigError(f"{asker} watches {name!r}, which is not logged; {nearest(name, map(str, figures))}")
    return float(figures[name])
