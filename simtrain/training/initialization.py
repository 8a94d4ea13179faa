"""Setting a model's weights by configs such as ``{type: Kaiming, layer: Conv2d}``."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import nn

from simtrain.config import plain
from simtrain.errors import ConfigError, nearest
from simtrain.training.initializers import Initializer, Pretrained, initializers
from simtrain.training.layer_tensors import own_tensor
from simtrain.training.parameters import nearest_names

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Step:
    """One initializer and the modules that it sets."""

    initializer: Initializer
    modules: list[nn.Module]

    def run(self) -> None:
        for module in self.modules:
            self.initializer.initialize(module)


def initialize(model: nn.Module, init_cfg: Any) -> None:
    """Set the weights of ``model`` as configs say.

    A config has a ``type`` (``Constant``, ``Xavier``, ``Normal``, ``TruncNormal``, ``Uniform``, ``Kaiming`` or
    ``Pretrained``), the settings of that type, and may have

    - ``layer``: class name, or a list of them, of the layers to set; names of base classes count;
    - ``override``: a config, or a list of them, for the submodule that its ``name`` (dotted) says and all in it. With a
      ``type`` it stands for itself, without one it changes single settings of the config around it.

    Without both, every layer that has a weight is set; with ``override`` alone, nothing but the overridden submodules.
    Configs are applied in their order, ``Pretrained`` after all others. A submodule with an ``init_cfg`` of its own is
    left to that, with everything in it (but a checkpoint of the whole is loaded into it, too). Random values come from
    torch's generator: the same seed gives the same weights.

    Args:
        model: The model; its weights are set in place.
        init_cfg: A config, or a list of configs, plain or OmegaConf's.

    Raises:
        ConfigError: A type, setting, layer or name is wrong; the message says what there is. No weight is changed then.
        CheckpointError: A checkpoint cannot be read or does not fit.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> initialize(model, {"type": "Constant", "val": 1, "layer": "Linear", "override": {"name": "1", "val": 2}})
        >>> model[0].weight[0].tolist(), model[1].weight[0].tolist()
        ([1.0, 1.0], [2.0, 2.0])
    """
    _run(_plan(model, init_cfg))


def _run(steps: list[_Step]) -> None:
    for step in sorted(steps, key=lambda step: isinstance(step.initializer, Pretrained)):
        step.run()


def _plan(model: nn.Module, init_cfg: Any) -> list[_Step]:
    """Check all configs, and say what they will do."""
    return [step for config in _listed("init_cfg", init_cfg) for step in _steps(model, config)]


def _steps(model: nn.Module, config: dict[str, Any]) -> Iterator[_Step]:
    if not isinstance(config.get("type"), str):
        raise ConfigError(f"init_cfg needs a 'type', got {config!r}; {nearest('', initializers.names())}")
    settings = {key: value for key, value in config.items() if key not in ("layer", "override")}
    overrides = [] if config.get("override") is None else _listed("override", config["override"])
    # Settings that the overrides alone complete need not be complete by themselves.
    if config.get("layer") is not None or not overrides:
        yield _step(model, model, settings, config.get("layer"))
    for override in overrides:
        name = _submodule_name(model, override)
        own = {key: value for key, value in override.items() if key not in ("name", "layer")}
        if "override" in own:
            raise ConfigError(
                f"the override of {name!r} has an 'override' of its own; give a list of overrides instead"
            )
        full = own if "type" in own else {**settings, **own}
        if any(_is_inside(name, inner) for inner in _configured(model)) and full["type"] != "Pretrained":
            _logger.warning("the override of %r has no effect: that module has an init_cfg of its own", name)
        yield _step(model, model.get_submodule(name), full, override.get("layer"))


def _step(model: nn.Module, part: nn.Module, settings: dict[str, Any], layer: Any) -> _Step:
    initializer = _build(settings)
    if isinstance(initializer, Pretrained):
        if layer is not None:
            raise ConfigError("Pretrained has no setting 'layer'; it loads whole modules: use 'override' with a 'name'")
        return _Step(initializer, [part])
    kept = _left_alone(model)
    inside = [module for module in part.modules() if id(module) not in kept]
    if layer is None:
        return _Step(initializer, [module for module in inside if own_tensor(module, "weight") is not None])
    names = _layer_names(part, layer)
    chosen = [m for m in inside if names & _class_names(m) and _is_settable(m)]
    if not chosen and not any(names & _class_names(m) and id(m) in kept for m in part.modules()):
        raise ConfigError(f"no layer of class {' or '.join(sorted(names))} has a 'weight' or 'bias' of its own to set")
    return _Step(initializer, chosen)


def _build(settings: dict[str, Any]) -> Initializer:
    cls = initializers.get(settings["type"])
    accepted = [field.name for field in fields(cls)] if is_dataclass(cls) else []
    for key in settings:
        if accepted and key not in (*accepted, "type"):
            hint = nearest(key, [*accepted, "layer", "override"])
            raise ConfigError(f"initializer {settings['type']!r} has no setting {key!r}; {hint}")
    built: Initializer = initializers.build(settings)
    return built


def _listed(key: str, value: Any) -> list[dict[str, Any]]:
    """One config or several, as a list of dicts."""
    value = plain(value)
    configs = [value] if isinstance(value, Mapping) else value
    if not isinstance(configs, (list, tuple)) or not all(isinstance(config, Mapping) for config in configs):
        raise ConfigError(f"{key} should be a dict or a list of dicts, got {value!r}")
    return [dict(config) for config in configs]


def _submodule_name(model: nn.Module, override: dict[str, Any]) -> str:
    known = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    name = override.get("name")
    if not isinstance(name, str):
        raise ConfigError(f"an override needs the 'name' of a submodule, got {override!r}; {nearest_names('', known)}")
    if name not in known:
        raise ConfigError(f"override names {name!r}, which {type(model).__name__} lacks; {nearest_names(name, known)}")
    return name


def _layer_names(part: nn.Module, layer: Any) -> set[str]:
    names = [layer] if isinstance(layer, str) else layer
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"layer should be a class name or a list of class names, got {layer!r}")
    present = set().union(*(_class_names(module) for module in part.modules()))
    for name in names:
        if name not in present:
            there = {type(module).__name__ for module in part.modules()}
            raise ConfigError(f"layer {name!r} is in no module of {type(part).__name__}; {nearest_names(name, there)}")
    return set(names)


def _class_names(module: nn.Module) -> set[str]:
    return {cls.__name__ for cls in type(module).__mro__}


def _is_settable(module: nn.Module) -> bool:
    return own_tensor(module, "weight") is not None or own_tensor(module, "bias") is not None


def _configured(model: nn.Module) -> list[str]:
    """Names of the submodules that have an ``init_cfg`` of their own."""
    return [name for name, m in model.named_modules() if name and getattr(m, "init_cfg", None) is not None]


def _left_alone(model: nn.Module) -> set[int]:
    return {id(module) for name in _configured(model) for module in model.get_submodule(name).modules()}


def _is_inside(name: str, outer: str) -> bool:
    return name == outer or name.startswith(f"{outer}.")
