"""From a YAML file and ``key=value`` words to a whole config in which every name is known to be right."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from simtrain.config.checks import problems
from simtrain.config.merging import merge
from simtrain.config.schema import Config
from simtrain.config.start_time import register_now
from simtrain.errors import ConfigError


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
    cfg, errors = examine(source, overrides)
    if errors:
        raise errors[0]
    return cfg


def examine(
    source: str | Path | Mapping[str, Any] | DictConfig | None = None,
    overrides: Sequence[str] = (),
    schema: type = Config,
) -> tuple[DictConfig, list[ConfigError]]:
    """Read a config as :func:`load_cfg` does, and find everything that is wrong with it.

    Args:
        source: See :func:`load_cfg`.
        overrides: See :func:`load_cfg`.
        schema: Dataclass that says which keys there are. Default: those of a job.

    Returns:
        The full config, with defaults in the place of what cannot be, and an error for each wrong key or value.

    Raises:
        ConfigError: The file or an override cannot be read at all.

    Example:
        >>> for error in examine({"trainin": {}}, ["training.epochs=many", "seed=-1"])[1]:
        ...     print(str(error)[:43])
        the config has an unknown key 'trainin'; di
        the config's value for 'training.epochs' do
        seed should be from 0 to 4294967295, got -1
    """
    register_now()
    given = _laid_over(OmegaConf.to_container(_read(source)), OmegaConf.to_container(_parse_overrides(overrides)))
    cfg, errors = merge(given, schema)
    return cfg, [*errors, *problems(cfg, schema)]


def _read(source: str | Path | Mapping[str, Any] | DictConfig | None) -> DictConfig:
    if source is None:
        return OmegaConf.create({})
    if isinstance(source, (str, Path)):
        return _read_file(Path(source))
    if isinstance(source, DictConfig):
        return source
    if not isinstance(source, Mapping):
        raise ConfigError(f"a config is a mapping, or the path of a YAML file, got {source!r}")
    try:
        return OmegaConf.create(dict(source))
    except OmegaConfBaseException as error:
        raise ConfigError(f"a config holds plain values only: {str(error).splitlines()[0]}") from error


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


def _laid_over(values: Any, overrides: Any) -> Any:
    # Not OmegaConf's merge, which breaks off where a list takes the place of a mapping.
    if not isinstance(values, Mapping) or not isinstance(overrides, Mapping):
        return overrides
    return {**values, **{key: _laid_over(values.get(key), value) for key, value in overrides.items()}}


def _parse_overrides(overrides: Sequence[str]) -> DictConfig:
    for word in overrides:
        if not re.match(r"[A-Za-z_][\w-]*(\.[\w-]+)*=", word):
            raise ConfigError(f"an override is written key=value (training.epochs=3), got {word!r}")
    try:
        return OmegaConf.from_dotlist(list(overrides))
    except Exception as error:
        raise ConfigError(f"cannot read the overrides {' '.join(overrides)!r}: {error}") from error
