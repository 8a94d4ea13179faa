"""What is wrong with the values of a whole config: limits of fields, and types and settings of the parts it names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf

from simtrain import registry
from simtrain.config.former_keys import former_key
from simtrain.config.nodes import named_encoders, plain
from simtrain.config.schema import Config
from simtrain.errors import ConfigError

# What an evaluator's entry says to the trainer, not to the metric.
_EVALUATOR_WORDS = ("stages", "prog_bar", "logger")


def problems(cfg: DictConfig, schema: type = Config) -> Iterator[ConfigError]:
    """Everything that is wrong with a config whose keys and types are right.

    Args:
        cfg: A config with all fields of the schema.
        schema: Dataclass that it is of.

    Yields:
        One error for each value that cannot be.
    """
    yield from _out_of_limits(schema, cfg, "")
    for check in _part_checks(cfg) if schema is Config else ():
        try:
            check()
        except ConfigError as error:
            yield error


def _out_of_limits(section: type, values: DictConfig, prefix: str) -> Iterator[ConfigError]:
    for one in fields(section):
        key = prefix + one.name
        if OmegaConf.is_missing(values, one.name) or values[one.name] is None:
            continue
        inner = OmegaConf.get_type(values, one.name)
        if isinstance(inner, type) and is_dataclass(inner):
            yield from _out_of_limits(inner, values[one.name], f"{key}.")
        elif "limit" in one.metadata:
            problem = one.metadata["limit"].problem(key, values[one.name])
            if problem is not None:
                yield ConfigError(problem)


def _part_checks(cfg: DictConfig) -> Iterator[Callable[[], None]]:
    if not OmegaConf.is_missing(cfg, "encoders"):
        for encoder in named_encoders(cfg.encoders).values():
            yield partial(registry.encoders.check, encoder)
    for key, room, positional in (
        ("head", registry.heads, 1),
        ("loss", registry.losses, 0),
        ("optimizer", registry.optimizers, 1),
        ("scheduler", registry.schedulers, 2),
    ):
        if not OmegaConf.is_missing(cfg, key) and cfg[key] is not None:
            # Groups of parameters are made once there is a model.
            settings = {word: value for word, value in plain(cfg[key]).items() if word != "parameter_groups"}
            yield partial(_check_part, key, room, settings, positional)
    if cfg.training.ema is not None:
        yield partial(registry.callbacks.check, {"type": "EMA", **plain(cfg.training.ema)})
    if cfg.training.early_stop is not None:
        yield partial(registry.callbacks.check, {"type": "EarlyStop", **plain(cfg.training.early_stop)})
    for callback in plain(cfg.callbacks):
        yield partial(registry.callbacks.check, callback)
    for metric in plain(cfg.metrics).values():
        yield partial(registry.metrics.check, metric)
    for evaluator in plain(cfg.evaluators).values():
        yield partial(registry.metrics.check, _metric_of(evaluator))
    if cfg.data.sampler is not None:
        sampler = {"batch_size": cfg.training.batch_size, **plain(cfg.data.sampler)}
        yield partial(registry.samplers.check, sampler, 1)


def _check_part(key: str, room: registry.Registry, settings: dict[str, Any], positional: int) -> None:
    try:
        room.check(settings, positional)
    except ConfigError:
        for word in settings:
            former = former_key(f"{key}.{word}")
            if former is not None:
                raise ConfigError(former) from None
        raise


def _metric_of(evaluator: Any) -> Any:
    words = dict(evaluator) if isinstance(evaluator, dict) else {}
    return {word: value for word, value in words.items() if word not in _EVALUATOR_WORDS} or evaluator
