"""Where a model is."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn


def device_of(module: nn.Module) -> torch.device:
    """Device of the first parameter or buffer; the CPU where there is none."""
    for tensor in chain(module.parameters(), module.buffers()):
        return tensor.device
    return torch.device("cpu")
