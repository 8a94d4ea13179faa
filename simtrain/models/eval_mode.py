"""Eval mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put ``module`` into eval mode, and afterwards each of its parts into the mode that it had before.

    Example:
        >>> layer = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
        >>> with eval_mode(layer):
        ...     layer[0].training
        False
        >>> layer[0].training, layer[1].training
        (True, False)
    """
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training
