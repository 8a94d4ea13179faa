"""Parts of a config that is loaded: as plain values, by key, encoders by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from simtrain.errors import ConfigError


def require(cfg: DictConfig, keys: Iterable[str]) -> None:
    """Raise a :class:`ConfigError` that names the first of ``keys`` (dotted) that has no value."""
    for key in keys:
        if OmegaConf.is_missing(cfg, key) or OmegaConf.select(cfg, key) is None:
            raise ConfigError(f"the config gives no value for {key!r}; add it to the file or as {key}=…")


def plain(node: Any) -> Any:
    """Config node as plain dicts and lists."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def named_encoders(encoders: Mapping[str, Any]) -> dict[str, Any]:
    """The encoders of a config's section by name; one that is given without a name is called ``default``."""
    section = plain(encoders)
    return {"default": section} if isinstance(section.get("type"), str) else dict(section)
