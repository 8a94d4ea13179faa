"""What breaks off a training comes out of it as it is."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.utilities.exceptions import SIGTERMException

from simtrain.runner.lifecycle import Lifecycle


@contextmanager
def same_exception(lifecycle: Lifecycle) -> Iterator[None]:
    """Raise a ``KeyboardInterrupt`` as itself, where Lightning exits the program, and leave Ctrl+C as it was.

    What Lightning raises on SIGTERM exits with the code that shells have for it, and not with that of success.

    Args:
        lifecycle: The callback that a trainer tells of exceptions.
    """
    handler: Any = signal.getsignal(signal.SIGINT)
    is_exit = False
    try:
        yield
    except SIGTERMException as error:
        error.code = 128 + signal.SIGTERM
        raise
    except SystemExit:
        is_exit = isinstance(lifecycle.exception, KeyboardInterrupt)
        if not is_exit:
            raise
    finally:
        # Lightning ignores the signal from the first one on, for good.
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) != handler:
            signal.signal(signal.SIGINT, handler)
    if is_exit and lifecycle.exception is not None:
        raise lifecycle.exception
