"""Lightning without the advice that does not hold here."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

#: Beginnings of warnings, each with why it is not for this project's users.
ADVICE = (
    # More workers for every loader; one over cache rows has nothing for them to do.
    ".*does not have many workers.*",
    # Validation is optional here.
    ".*have no `val_dataloader`.*",
    # Frozen encoders are in eval mode on purpose.
    ".*in eval mode at the start of training.*",
)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Run Lightning with warnings and errors only, and without :data:`ADVICE`; afterwards all is as it was."""
    talk = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = talk.level
    talk.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in ADVICE:
            warnings.filterwarnings("ignore", message=message)
        # Lightning 2.6 asks torch's pytree in a way that torch 2.13 deprecates.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        try:
            yield
        finally:
            talk.setLevel(level)
