"""Settings of the cross-batch memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from simtrain.errors import ConfigError


@dataclass
class XbmConfig:
    """Settings of the cross-batch memory: a ring of recent embeddings that the batch is compared with, too.

    The memory is filled from the first step on; its loss joins in after ``start_iteration`` steps, when embeddings
    have become steady enough to be remembered.

    Args:
        weight: Factor of the memory's loss, which is added to the batch's. Above zero.
        buffer_size: How many embeddings are remembered, one or more.
        start_iteration: Steps before the memory's loss joins in, zero or more.
        device: Where the memory lives: ``"auto"`` for wherever the model is, or a torch device.
        dtype: Floating point type of the remembered embeddings; a name such as ``"float16"`` is accepted.

    Raises:
        ConfigError: A setting is not one of the above.

    Reference:
        Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020, https://arxiv.org/abs/1912.06798

    Example:
        >>> XbmConfig(buffer_size=55_000, dtype="float16").dtype
        torch.float16
    """

    weight: float | int = 1.0
    buffer_size: int = 10_000
    start_iteration: int = 1_000
    device: str | torch.device = "auto"
    dtype: torch.dtype | str = torch.float32

    def __post_init__(self) -> None:
        if not _is_number(self.weight) or not math.isfinite(self.weight) or self.weight <= 0:
            raise ConfigError(
                f"XbmConfig: weight must be a finite number above zero, got {self.weight!r}; "
                f"to train without a memory, give no XbmConfig"
            )
        _check_count("buffer_size", self.buffer_size, least=1)
        _check_count("start_iteration", self.start_iteration, least=0)
        self.dtype = parse_dtype(self.dtype)
        parse_device(self.device)


def parse_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """Floating point type by itself or by its name.

    Raises:
        ConfigError: There is none of that name, or it is not floating point.

    Example:
        >>> parse_dtype("bfloat16"), parse_dtype("torch.float64")
        (torch.bfloat16, torch.float64)
    """
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ConfigError(
            f"XBM: dtype must be a floating point type such as torch.float32, 'float16' or 'bfloat16', got {dtype!r}"
        )
    return found


def parse_device(device: str | torch.device) -> torch.device | None:
    """Device by itself or by its name; ``None`` for ``"auto"``.

    Raises:
        ConfigError: It does not name a device.

    Example:
        >>> parse_device("cpu"), parse_device("auto")
        (device(type='cpu'), None)
    """
    if isinstance(device, torch.device):
        return device
    if device == "auto":
        return None
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(
            f"XBM: device must be 'auto' or a torch device such as 'cpu' or 'cuda:0', got {device!r}"
        ) from error


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_count(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"XbmConfig: {name} must be a whole number, {least} or more, got {value!r}")
