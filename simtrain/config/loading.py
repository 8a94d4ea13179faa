"""From a YAML file and ``key=value`` words to a whole config in which every name is known to be right."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from simtrain.config.checks import problems
from simtrain.config.schema import Config
from simtrain.errors import ConfigError, nearest

# A file that names one of these says the whole part: default arguments of another type must not leak into it.
_REPLACED_PARTS = ("head", "optimizer")


def load_cfg(
    source: str | Path | Mapping[str, Any] | DictConfig | None = None, overrides: Sequence[str] = ()
) -> DictConfig:
    """Read a config, check every name in it, and fill in the defaults.

    Args:
        source: YAML file, or the same as a mapping; None gives the defaults.
        overrides: ``key=value`` words, dots for nesting (``training.epochs=3``); values are YAML.

    Returns:
        The full config, with the fields of :class:`Config`.

    Raises:
        ConfigError: The file is missing or malformed, or a key, a type or a value is wrong.

    Example:
        >>> cfg = load_cfg({"loss": {"type": "TripletLoss"}}, ["training.epochs=3"])
        >>> cfg.training.epochs, cfg.training.batch_size
        (3, 256)
    """
    given = OmegaConf.merge(_read(source), _parse_overrides(overrides))
    assert isinstance(given, DictConfig)
    defaults = OmegaConf.structured(Config)
    for part in _REPLACED_PARTS:
        if isinstance(given.get(part), DictConfig) and "type" in given[part]:
            defaults[part] = {}
    try:
        merged = OmegaConf.merge(defaults, given)
        OmegaConf.resolve(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(_explain(error, given)) from error
    assert isinstance(merged, DictConfig)
    problem = next(problems(merged), None)
    if problem is not None:
        raise problem
    return merged


def _read(source: str | Path | Mapping[str, Any] | DictConfig | None) -> DictConfig:
    if source is None:
        return OmegaConf.create({})
    if isinstance(source, (str, Path)):
        return _read_file(Path(source))
    return source if isinstance(source, DictConfig) else OmegaConf.create(dict(source))


def _read_file(path: Path) -> DictConfig:
    if not path.is_file():
        raise ConfigError(f"there is no config file {str(path)!r}")
    try:
        content = OmegaConf.load(path)
    except Exception as error:
        # OmegaConf lets the YAML parser's own exceptions through; each says line and column.
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, DictConfig):
        raise ConfigError(f"{path} should hold keys and values at its top level, got a {type(content).__name__}")
    return content


def _parse_overrides(overrides: Sequence[str]) -> DictConfig:
    for word in overrides:
        if not re.match(r"[A-Za-z_][\w.-]*=", word):
            raise ConfigError(f"an override is written key=value (training.epochs=3), got {word!r}")
    try:
        return OmegaConf.from_dotlist(list(overrides))
    except Exception as error:
        raise ConfigError(f"cannot read the overrides {' '.join(overrides)!r}: {error}") from error


def _explain(error: OmegaConfBaseException, given: DictConfig) -> str:
    key = error.full_key or error.key or ""
    parent, _, name = str(key).rpartition(".")
    schema = OmegaConf.select(OmegaConf.structured(Config), parent) if parent else OmegaConf.structured(Config)
    # Asked of the keys: a required key that has no value yet is not "in" a config.
    if isinstance(schema, DictConfig) and name not in schema.keys():  # noqa: SIM118
        return f"the config has an unknown key {key!r}; {nearest(name, [str(word) for word in schema])}"
    value = OmegaConf.select(given, str(key), throw_on_missing=False)
    reason = str(error).splitlines()[0]
    return f"the config's value for {key!r} does not fit: {reason} (got {value!r})"
