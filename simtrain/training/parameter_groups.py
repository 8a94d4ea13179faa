"""Groups of parameters with settings of their own: learning rate, weight decay, a decay from layer to layer."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from simtrain.errors import ConfigError, nearest
from simtrain.training.parameters import nearest_names

#: What an entry says beside settings of the optimizer.
OWN_WORDS = ("pattern", "layer_decay")


def regroup(optimizer: Optimizer, named: Iterable[tuple[str, nn.Parameter]], entries: Sequence[Any]) -> Optimizer:
    """Put the parameters of an optimizer into groups with settings of their own.

    A parameter takes the settings of all entries whose pattern is found in its name, later ones over earlier ones; all
    others keep theirs.

    Args:
        optimizer: An optimizer that has taken no step.
        named: The model's parameters by name.
        entries: Each a mapping with a ``pattern`` (``re.search`` in the name) and any setting of the optimizer
            (``lr``, ``weight_decay``, …); ``layer_decay`` multiplies the rate of each numbered layer by this for
            every layer above it, that of what comes before the first layer once more.

    Returns:
        The optimizer, its groups named by their patterns.

    Raises:
        ConfigError: A pattern is malformed or found in no trained parameter's name, or a setting is unknown.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        >>> entries = [{"pattern": "^1", "lr": 1.0}, {"pattern": "bias", "weight_decay": 0.0}]
        >>> [(group["lr"], group["weight_decay"]) for group in regroup(
        ...     optimizer, model.named_parameters(), entries).param_groups]
        [(0.1, 0.01), (0.1, 0.0), (1.0, 0.01), (1.0, 0.0)]
    """
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    names = {id(p): name for name, p in named if id(p) in trained}
    settings: dict[int, dict[str, Any]] = defaultdict(dict)
    scales: dict[int, float] = defaultdict(lambda: 1.0)
    for entry in entries:
        check_entry(entry, optimizer.defaults)
        hits = _hits(entry["pattern"], names)
        options = {word: value for word, value in entry.items() if word not in OWN_WORDS}
        depths = _depths([names[key] for key in hits], entry["pattern"]) if "layer_decay" in entry else {}
        for key in hits:
            settings[key] |= {**options, "name": _joined(settings[key].get("name"), entry["pattern"])}
            scales[key] *= entry.get("layer_decay", 1.0) ** depths.get(names[key], 0)
    _refill(optimizer, settings, scales)
    return optimizer


def check_entry(entry: Any, accepted: Iterable[str]) -> None:
    """Refuse an entry that is malformed, whatever the model.

    Args:
        entry: One of ``optimizer.parameter_groups``.
        accepted: The optimizer's settings.

    Raises:
        ConfigError: It is.

    Example:
        >>> check_entry({"pattern": "bias", "lr": 0.1}, ["lr", "weight_decay"])
    """
    if not isinstance(entry, Mapping) or not isinstance(entry.get("pattern"), str):
        raise ConfigError(f"optimizer.parameter_groups holds {{pattern: …, lr: …}}, got {entry!r}")
    words = [*accepted, *OWN_WORDS]
    for word in entry:
        if word not in words:
            raise ConfigError(f"a group of parameters has no setting {word!r}; {nearest(str(word), words)}")
    decay = entry.get("layer_decay", 1.0)
    if isinstance(decay, bool) or not isinstance(decay, (int, float)) or not 0 < decay <= 1:
        raise ConfigError(
            f"layer_decay of the group {entry['pattern']!r} should be above 0 and at most 1, got {decay!r}"
        )
    for word in ("lr", "weight_decay"):
        value = entry.get(word, 0.0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ConfigError(f"{word} of the group {entry['pattern']!r} should be a number from 0 on, got {value!r}")
    try:
        re.compile(entry["pattern"])
    except re.error as error:
        raise ConfigError(f"the group {entry['pattern']!r} is not a pattern: {error}") from error


def _hits(pattern: str, names: Mapping[int, str]) -> list[int]:
    hits = [key for key, name in names.items() if re.search(pattern, name)]
    if not hits:
        raise ConfigError(
            f"the pattern {pattern!r} of optimizer.parameter_groups is found in the name of no parameter that is "
            f"trained; {nearest_names(pattern, names.values())}"
        )
    return hits


def _depths(names: Sequence[str], pattern: str) -> dict[str, int]:
    """How many layers are above each parameter."""
    numbers: dict[str, set[int]] = defaultdict(set)
    for name in names:
        for match in re.finditer(r"(?<![^.])(\d+)(?=\.)", name):
            numbers[name[: match.start()]].add(int(match.group()))
    # The list with the most entries is that of the layers: names hold other numbers, too.
    stem = max(numbers, key=lambda one: len(numbers[one]), default="")
    if len(numbers.get(stem, ())) < 2:
        raise ConfigError(f"layer_decay: what the pattern {pattern!r} is found in has no numbered layers")
    layers = sorted(numbers[stem])
    depths, is_above = {}, False
    for name in names:
        in_layer = re.match(rf"{re.escape(stem)}(\d+)\.", name)
        if in_layer is not None:
            is_above = True
            depths[name] = len(layers) - 1 - layers.index(int(in_layer.group(1)))
        else:
            # Embeddings come before the layers, a pooling or a last norm after them.
            depths[name] = 0 if is_above else len(layers)
    return depths


def _refill(optimizer: Optimizer, settings: Mapping[int, dict[str, Any]], scales: Mapping[int, float]) -> None:
    groups: dict[Any, dict[str, Any]] = {}
    for number, group in enumerate(optimizer.param_groups):
        base = {word: value for word, value in group.items() if word != "params"}
        for parameter in group["params"]:
            own = {**base, **settings.get(id(parameter), {})}
            own["lr"] = own["lr"] * scales.get(id(parameter), 1.0)
            key = (number, *((word, repr(value)) for word, value in sorted(own.items())))
            groups.setdefault(key, {**own, "params": []})["params"].append(parameter)
    optimizer.param_groups.clear()
    for group in groups.values():
        optimizer.add_param_group(group)


def _joined(earlier: str | None, pattern: str) -> str:
    return pattern if earlier is None else f"{earlier} + {pattern}"
