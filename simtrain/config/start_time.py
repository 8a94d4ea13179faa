"""When the program began: for folders that are named by it."""

from __future__ import annotations

import os
from datetime import datetime

import omegaconf
from omegaconf import OmegaConf

# The processes that a training starts inherit it, so that all of them mean one folder.
_VARIABLE = "SIMTRAIN_STARTED"


def start_time() -> datetime:
    """The time at which the first process of this run asked, the same for as long as it lives.

    Example:
        >>> start_time() == start_time()
        True
    """
    return datetime.fromisoformat(os.environ.setdefault(_VARIABLE, datetime.now().isoformat(timespec="seconds")))


def register_now() -> None:
    """Let configs say ``${now:%Y-%m-%d_%H-%M-%S}``; a resolver of that name that is there already stays."""
    if OmegaConf.has_resolver("now"):
        return
    # OmegaConf 2.4 gave the function the name that in 2.3 belonged to an older one.
    is_renamed = tuple(int(part) for part in omegaconf.__version__.split(".")[:2]) >= (2, 4)
    register = OmegaConf.register_resolver if is_renamed else OmegaConf.register_new_resolver
    register("now", lambda pattern: start_time().strftime(pattern))
