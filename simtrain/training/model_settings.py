"""From a config to the class of a model and the arguments of its constructor."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, get_origin, get_type_hints

import torch
from omegaconf import DictConfig, OmegaConf

from simtrain import registry
from simtrain.errors import ConfigError, ContractError, UnknownNameError, nearest

#: Keys of a model's config that say what to do with the model, not how to build it.
RESERVED = ("type", "pretrained", "allow_missing_keys", "device")
# Parts of a model; an optimizer, a sampler or a callback cannot be built before there is a model.
_PARTS = (registry.models, registry.encoders, registry.heads, registry.losses, registry.metrics, registry.preprocessors)


def settings_of(cfg: Any) -> dict[str, Any]:
    """The settings of a config as a dict.

    Args:
        cfg: A mapping, an OmegaConf config, a ``Namespace`` or another object with attributes, or a dataclass.

    Raises:
        ContractError: ``cfg`` is nothing of that kind.

    Example:
        >>> from argparse import Namespace
        >>> settings_of(Namespace(type="Toy", size=3))
        {'type': 'Toy', 'size': 3}
    """
    if isinstance(cfg, DictConfig):
        return {str(key): value for key, value in OmegaConf.to_container(cfg, resolve=True).items()}  # type: ignore[union-attr]
    if isinstance(cfg, Mapping):
        return {str(key): value for key, value in cfg.items()}
    if dataclasses.is_dataclass(cfg) and not isinstance(cfg, type):
        return {field.name: getattr(cfg, field.name) for field in dataclasses.fields(cfg)}
    if hasattr(cfg, "__dict__") and not isinstance(cfg, type) and not callable(cfg):
        return dict(vars(cfg))
    raise ContractError(
        f"a model's config is a dict, an OmegaConf config, a Namespace or a dataclass, got {type(cfg).__name__}"
    )


def model_class(asked: type[Any], root: type[Any], settings: Mapping[str, Any]) -> type[Any]:
    """The class that a config is about.

    Args:
        asked: The class whose ``from_cfg`` was called.
        root: The abstract class, which cannot be built without a ``type``.
        settings: Settings of the model.

    Raises:
        ConfigError: There is no ``type``, it is unknown, or it names a class of another kind.
    """
    name = settings.get("type")
    if name is None:
        if asked is root:
            raise ConfigError(
                f"the config has no 'type', and {root.__name__} itself cannot be built; name a registered class "
                f"({nearest('', registry.models.names())}), or call from_cfg on the class itself"
            )
        return asked
    found = registry.models.get(name)
    if not (inspect.isclass(found) and issubclass(found, asked)):
        raise ConfigError(f"the model {name!r} is no {asked.__name__}; call {root.__name__}.from_cfg, or change 'type'")
    return found


def constructor_words(kind: type[Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings that are arguments of a class's constructor.

    Raises:
        ConfigError: A setting is neither that nor reserved, or an argument without a default is missing.
    """
    signature = inspect.signature(kind)
    takes_all = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    accepted = [p.name for p in signature.parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    words = {key: value for key, value in settings.items() if key in accepted or key not in RESERVED}
    for key in words:
        if key not in accepted and not takes_all:
            raise ConfigError(f"{kind.__name__} has no setting {key!r}; {nearest(key, [*accepted, *RESERVED])}")
    try:
        signature.bind(**words)
    except TypeError as error:
        raise ConfigError(f"{kind.__name__} cannot be built from this config: {error}") from error
    return words


def built(kind: type[Any], words: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments with every sub-config built: a mapping that has a ``type``, also in lists and mappings.

    An argument that the constructor annotates as a ``dict`` or ``Mapping`` is left as it is, and so are the
    ``data_preprocessor`` and ``init_cfg``, which a model reads itself.

    Raises:
        ConfigError: A ``type`` is unknown, or known in several registries.
    """
    raw = _wants_mapping(kind) | {"data_preprocessor", "init_cfg"}
    return {name: value if name in raw else build_nested(value) for name, value in words.items()}


def build_nested(value: Any) -> Any:
    """Build a value where it is a config with a ``type``, and what a list or mapping holds likewise."""
    if isinstance(value, DictConfig):
        value = OmegaConf.to_container(value, resolve=True)
    if isinstance(value, Mapping):
        if isinstance(value.get("type"), str):
            return _registry_of(value["type"]).build({key: build_nested(part) for key, part in value.items()})
        return {key: build_nested(part) for key, part in value.items()}
    if isinstance(value, list):
        return [build_nested(part) for part in value]
    return value


def usable_device(name: Any) -> torch.device:
    """The device of that name.

    Raises:
        ConfigError: There is no such device on this machine.

    Example:
        >>> usable_device("cpu")
        device(type='cpu')
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"the device {name!r} cannot be used here ({reason}); use 'cpu', or leave it out") from error
    return device


def _registry_of(name: str) -> registry.Registry:
    found = [part for part in _PARTS if name in part]
    if len(found) == 1:
        return found[0]
    kinds = " and a ".join(part.kind for part in found)
    if found:
        raise ConfigError(f"{name!r} is a {kinds}; build it yourself and pass the object")
    known = [known for part in _PARTS for known in part.names()]
    raise UnknownNameError(f"unknown type {name!r} in a model's config; {nearest(name, known)}")


def _wants_mapping(kind: type[Any]) -> set[str]:
    try:
        hints = get_type_hints(kind.__init__)
    except (NameError, TypeError):  # annotations that only a type checker can resolve
        return set()
    return {name for name, hint in hints.items() if _is_mapping(hint)}


def _is_mapping(hint: Any) -> bool:
    kinds = [get_origin(hint) or hint, *(get_origin(part) or part for part in getattr(hint, "__args__", ()))]
    # dict[str, Any] has the arguments str and Any; dict | None has dict.
    return any(inspect.isclass(part) and issubclass(part, Mapping) for part in kinds)
