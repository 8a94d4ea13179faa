"""A trainable model from a config."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from simtrain import registry
from simtrain.config import plain, require
from simtrain.training.configured_optimizer import ConfiguredOptimizer
from simtrain.training.parts import model_parts
from simtrain.training.trainable_model import TrainableModel

_PARTS = ("encoders", "head", "loss", "optimizer", "scheduler", "cache", "xbm", "metrics", "evaluators", "loss_lr")


def build_model(cfg: DictConfig) -> TrainableModel:
    """Assemble the model that a config describes.

    Args:
        cfg: A config from :func:`simtrain.load_cfg`.

    Raises:
        ConfigError: A part is missing, unknown or does not fit the others.

    Example:
        >>> from simtrain import load_cfg
        >>> encoder = {"type": "PrecomputedEncoder", "embedding_size": 4}
        >>> cfg = load_cfg({"encoders": encoder, "loss": {"type": "SupConLoss"}})
        >>> build_model(cfg).model.embedding_size
        4
    """
    require(cfg, ["encoders", "loss"])
    settings = plain(cfg)
    _rehearse_optimizer(settings)
    return TrainableModel(**model_parts({part: settings[part] for part in _PARTS}))


def _rehearse_optimizer(settings: dict[str, Any]) -> None:
    # A wrong rate is an error now, and not after every item has been encoded.
    optimizer = ConfiguredOptimizer(settings["optimizer"])([nn.Parameter(torch.zeros(1))])
    if settings["scheduler"]:
        registry.schedulers.build(settings["scheduler"], optimizer, 100)
