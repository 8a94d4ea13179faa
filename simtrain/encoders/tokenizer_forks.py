"""Fast tokenizers in forked loader workers.

The Rust tokenizers print a warning in every process that is forked after they have worked on several
threads, unless the environment says whether threads are wanted. The loader's workers must not use threads
(the thread pool does not survive a fork), while the parent process should. So the environment says no at
the moment of a fork only; a setting of the user's own is left alone.
"""

from __future__ import annotations

import functools
import os

_VARIABLE = "TOKENIZERS_PARALLELISM"


@functools.cache
def quiet_forks() -> None:
    """From now on, forked processes tokenize on one thread and print no warning about it."""
    if not hasattr(os, "register_at_fork"):  # no forks on Windows
        return
    state = {"set_here": False}

    def before() -> None:
        state["set_here"] = _VARIABLE not in os.environ
        os.environ.setdefault(_VARIABLE, "false")

    def after_in_parent() -> None:
        if state["set_here"]:
            os.environ.pop(_VARIABLE, None)

    os.register_at_fork(before=before, after_in_parent=after_in_parent)
