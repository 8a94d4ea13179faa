"""How items are embedded."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from simtrain.encoders.positive_size import positive_size
from simtrain.errors import ConfigError, nearest

AUTOCAST_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class EncodingOptions:
    """The options of :meth:`simtrain.SimilarityModel.encode`, checked.

    Raises:
        ConfigError: A number is not positive, or the number format is unknown.

    Example:
        >>> EncodingOptions(batch_size=64).autocast is None
        True
    """

    batch_size: int = 32
    to_numpy: bool = True
    show_progress: bool | None = None
    normalize: bool = False
    autocast: str | None = None
    processes: int = 1

    def __post_init__(self) -> None:
        positive_size("batch_size", self.batch_size)
        positive_size("processes", self.processes)
        if self.autocast is not None and self.autocast not in AUTOCAST_TYPES:
            raise ConfigError(f"unknown autocast {self.autocast!r}; {nearest(str(self.autocast), AUTOCAST_TYPES)}")

    def autocast_on(self, device: torch.device) -> AbstractContextManager[Any]:
        """The context in which models on ``device`` compute."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(device.type, AUTOCAST_TYPES[self.autocast])
