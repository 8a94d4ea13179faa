"""The parts of a trainable model, from their configs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from simtrain import registry
from simtrain.cache import CacheConfig
from simtrain.config import named_encoders
from simtrain.errors import ConfigError, nearest
from simtrain.training.attached_evaluator import attached_evaluators
from simtrain.training.attached_metric import AttachedMetric
from simtrain.training.configured_optimizer import ConfiguredOptimizer
from simtrain.xbm import XbmConfig


def model_parts(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the configs of a model's parts into what :class:`simtrain.TrainableModel` takes.

    Args:
        settings: Part → its config. Anything that is no config, and any other key, is handed on as it is.

    Returns:
        Part → object, or, where a part needs something that only the model knows, a function of it.

    Raises:
        ConfigError: A name or a setting is unknown or wrong.

    Example:
        >>> parts = model_parts({"head": {"type": "EmptyHead"}, "loss": {"type": "TripletLoss", "margin": 0.2}})
        >>> parts["head"](8).output_size, parts["loss"].margin
        (8, 0.2)
    """
    return {
        name: _BUILDERS[name](value) if name in _BUILDERS and isinstance(value, Mapping) else value
        for name, value in settings.items()
    }


def _encoders(value: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: registry.encoders.build(encoder) if isinstance(encoder, Mapping) else encoder
        for name, encoder in named_encoders(value).items()
    }


def _metrics(value: Mapping[str, Any]) -> list[AttachedMetric]:
    return [AttachedMetric(name, registry.metrics.build(metric), on_epoch=True) for name, metric in value.items()]


def _dataclass(kind: Any, section: str, values: Mapping[str, Any]) -> Any:
    fields = list(kind.__dataclass_fields__)
    for word in values:
        if word not in fields:
            raise ConfigError(f"the config's section {section!r} has no setting {word!r}; {nearest(word, fields)}")
    return kind(**values)


def _later(part: registry.Registry, n_args: int, value: Mapping[str, Any]) -> Callable[..., Any]:
    # What is wrong with a name or an argument shows now, not when the part is made.
    part.check(value, n_args)
    return partial(part.build, value)


_BUILDERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "encoders": _encoders,
    "head": partial(_later, registry.heads, 1),
    "loss": registry.losses.build,
    "optimizer": ConfiguredOptimizer,
    "scheduler": partial(_later, registry.schedulers, 2),
    "cache": partial(_dataclass, CacheConfig, "cache"),
    "xbm": XbmConfig.from_words,
    "metrics": _metrics,
    "evaluators": attached_evaluators,
}
