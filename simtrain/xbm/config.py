"""Settings of the cross-batch memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from simtrain.errors import ConfigError, nearest

#: Most rows that the paper's authors remember.
PAPER_SIZE = 55_000


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
        momentum: Fill the memory with the embeddings of a moving average of the head and the trainable encoders, of
            which this is the share that stays in each step (MoCo has 0.999). At least 0 and below 1; default: fill it
            with the batch's own embeddings.

    Raises:
        ConfigError: A setting is not one of the above.

    Reference:
        Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020, https://arxiv.org/abs/1912.06798;
        ``momentum``: He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020,
        https://arxiv.org/abs/1911.05722

    Example:
        >>> XbmConfig(buffer_size=55_000, dtype="float16").dtype
        torch.float16
    """

    weight: float | int = 1.0
    buffer_size: int = 10_000
    start_iteration: int = 1_000
    device: str | torch.device = "auto"
    dtype: torch.dtype | str = torch.float32
    momentum: float | int | None = None

    @classmethod
    def paper(cls, n_items: int, **settings: Any) -> XbmConfig:
        """The setting of the paper's authors: all training items up to 55,000, after 1,000 steps, with weight 1.

        Args:
            n_items: Items in the training set.
            **settings: Others than the paper's.

        Example:
            >>> XbmConfig.paper(59_551).buffer_size, XbmConfig.paper(6_000).buffer_size
            (55000, 6000)
        """
        _check_count("n_items", n_items, least=1)
        chosen = {"weight": 1.0, "buffer_size": min(n_items, PAPER_SIZE), "start_iteration": 1_000}
        return cls(**{**chosen, **settings})

    @classmethod
    def from_words(cls, words: Mapping[str, Any]) -> XbmConfig:
        """The settings of a config file: those of this class, or ``preset: paper`` with ``n_items``, and changes to it.

        Raises:
            ConfigError: There is no such preset or setting, or a value is wrong.

        Example:
            >>> XbmConfig.from_words({"preset": "paper", "n_items": 6_000, "dtype": "float16"}).buffer_size
            6000
        """
        settings = dict(words)
        preset = settings.pop("preset", None)
        known = [*cls.__dataclass_fields__, "preset", *(["n_items"] if preset else [])]
        for word in settings:
            if word not in known:
                raise ConfigError(f"the config's section 'xbm' has no setting {word!r}; {nearest(str(word), known)}")
        if preset is None:
            return cls(**settings)
        if preset != "paper":
            raise ConfigError(f"XbmConfig: unknown preset {preset!r}; {nearest(str(preset), ['paper'])}")
        if "n_items" not in settings:
            raise ConfigError("XbmConfig: the preset 'paper' needs n_items, the number of items in the training set")
        return cls.paper(**settings)

    def __post_init__(self) -> None:
        if not _is_number(self.weight) or not math.isfinite(self.weight) or self.weight <= 0:
            raise ConfigError(
                f"XbmConfig: weight must be a finite number above zero, got {self.weight!r}; "
                f"to train without a memory, give no XbmConfig"
            )
        _check_count("buffer_size", self.buffer_size, least=1)
        _check_count("start_iteration", self.start_iteration, least=0)
        if self.momentum is not None and (not _is_number(self.momentum) or not 0 <= self.momentum < 1):
            raise ConfigError(
                f"XbmConfig: momentum must be None or a number of at least 0 and below 1, got {self.momentum!r}"
            )
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
