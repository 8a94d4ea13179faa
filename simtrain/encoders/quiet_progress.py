"""No progress bars where transformers reads or writes weights for a second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from simtrain.errors import import_extra


@contextmanager
def quiet_progress() -> Iterator[None]:
    """Switch the progress bars of transformers off, and afterwards on again if they were."""
    logging = import_extra("transformers.utils.logging", "text")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
