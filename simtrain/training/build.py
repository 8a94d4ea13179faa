"""A trainable model from a config."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from simtrain import registry
from simtrain.cache import CacheConfig
from simtrain.config import named_encoders, plain, require
from simtrain.errors import ConfigError, nearest
from simtrain.training.attached_metric import AttachedMetric
from simtrain.training.trainable_model import TrainableModel
from simtrain.xbm import XbmConfig


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
    return TrainableModel(
        encoders={name: registry.encoders.build(encoder) for name, encoder in named_encoders(cfg).items()},
        head=partial(registry.heads.build, settings["head"]),
        loss=registry.losses.build(settings["loss"]),
        optimizer=partial(registry.optimizers.build, settings["optimizer"]),
        scheduler=partial(registry.schedulers.build, settings["scheduler"]) if settings["scheduler"] else None,
        cache=_settings(CacheConfig, settings["cache"], "cache"),
        xbm=_settings(XbmConfig, settings["xbm"], "xbm"),
        metrics=[
            AttachedMetric(name, registry.metrics.build(metric), on_epoch=True)
            for name, metric in settings["metrics"].items()
        ],
    )


def _rehearse_optimizer(settings: dict[str, Any]) -> None:
    # A wrong rate is an error now, and not after every item has been encoded.
    optimizer = registry.optimizers.build(settings["optimizer"], [nn.Parameter(torch.zeros(1))])
    if settings["scheduler"]:
        registry.schedulers.build(settings["scheduler"], optimizer, 100)


def _settings(kind: Any, values: dict[str, Any] | None, section: str) -> Any:
    if values is None:
        return None
    fields = list(kind.__dataclass_fields__)
    for word in values:
        if word not in fields:
            raise ConfigError(f"the config's section {section!r} has no setting {word!r}; {nearest(word, fields)}")
    return kind(**values)
