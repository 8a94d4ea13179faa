"""Heads in the format of quaterion-models: read as this project's own, and written as theirs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from simtrain import heads
from simtrain.encoders.saved_encoder import refusing
from simtrain.encoders.settings_file import build_from_settings, read_settings, write_settings
from simtrain.errors import ConfigError, ServableError
from simtrain.heads import EncoderHead, LinearHead, SequentialHead, SwitchHead, WideningHead
from simtrain.models.part_files import load_part
from simtrain.models.quaterion_classes import Entry, class_entry, class_of, entry_name, is_entry
from simtrain.models.quaterion_weights import read_layers, read_weights, write_layers, write_weights

SETTINGS_FILE, WEIGHTS_FILE = "config.json", "weights.bin"

#: Heads that quaterion-models has, and the module of each there.
HOMES = {
    "EmptyHead": "empty_head",
    "GatedHead": "gated_head",
    "SequentialHead": "sequential_head",
    "SkipConnectionHead": "skip_connection_head",
    "SoftmaxEmbeddingsHead": "softmax_head",
    "StackedProjectionHead": "stacked_projection_head",
    "SwitchHead": "switch_head",
    "WideningHead": "widening_head",
}
_ROOM = "quaterion_models.heads"
# What they keep of these cannot be rebuilt inside a SwitchHead, and they would not be run there.
_NEVER_NESTED = ("SequentialHead", "SwitchHead")


def head_class(entry: Entry, allow: Collection[type], folder: Path) -> type[Any]:
    """The class for an entry: this project's own for their heads, else one that the caller allows.

    Raises:
        ServableError: It is neither.
    """
    if entry["class"] in HOMES and f"{entry['module']}.".startswith(f"{_ROOM}."):
        return getattr(heads, entry["class"])  # type: ignore[no-any-return]
    return class_of(entry, allow, "head", folder)


def read_head(cls: type[Any], folder: Path, allow: Collection[type]) -> nn.Module:
    """Read a head that quaterion-models saved, as a ``cls``.

    Raises:
        ServableError: A file is missing or damaged, names a class that is not allowed, or does not fit ``cls``.
    """
    if not issubclass(cls, EncoderHead) and not _loads_as_usual(cls, folder):
        return load_part(cls, folder)
    settings = read_settings(folder / SETTINGS_FILE)
    if cls is SequentialHead:
        settings["layers"] = read_layers(folder / WEIGHTS_FILE)
    with refusing(cls, folder):
        head = _built(cls, settings, folder / SETTINGS_FILE, allow)
    if cls is not SequentialHead:
        read_weights(head, folder / WEIGHTS_FILE)
    return head


def write_head(head: nn.Module, folder: Path) -> Entry:
    """Write a head as quaterion-models reads it, and return the entry of its class there.

    What only training knows and their class has no place for (the dropout of a :class:`SwitchHead`) is left out.

    Raises:
        ServableError: They have no such head.
    """
    if not isinstance(head, EncoderHead):
        head.save(str(folder))  # type: ignore[operator]
        return class_entry(head)
    try:
        entry, settings, weights = _described(head)
        if isinstance(head, SequentialHead):
            write_layers(_layers_of(head), folder / WEIGHTS_FILE)
        else:
            write_weights(weights or {}, folder / WEIGHTS_FILE)
    except ConfigError as error:
        raise ServableError(f"{type(head).__name__} cannot be saved for quaterion-models: {error}") from error
    write_settings(folder / SETTINGS_FILE, settings)
    return entry


def _built(cls: type[Any], settings: dict[str, Any], file: Path, allow: Collection[type]) -> nn.Module:
    if not issubclass(cls, EncoderHead):
        theirs: nn.Module = cls(**settings)
        return theirs
    if cls is WideningHead:
        settings = {word: value for word, value in settings.items() if word != "output_sizes"}
    if cls is SwitchHead:
        options = settings.pop("heads", None)
        if not isinstance(options, dict) or not options:
            raise ServableError(f"{file} must give the options under 'heads', got {options!r:.80}")
        settings["options"] = {name: _built_option(name, one, file, allow) for name, one in options.items()}
    head: nn.Module = build_from_settings(cls, settings, file)
    return head


def _built_option(name: str, given: Any, file: Path, allow: Collection[type]) -> nn.Module:
    given = given if isinstance(given, dict) else {}
    entry, settings = given.get("class"), given.get("config")
    if not is_entry(entry) or not isinstance(settings, dict) or entry["class"] in _NEVER_NESTED:
        raise ServableError(f"{file}: the option {name!r} is no head that can be rebuilt, got {given!r:.120}")
    return _built(head_class(entry, allow, file.parent), settings, file, allow)


def _loads_as_usual(cls: type[Any], folder: Path) -> bool:
    home = getattr(cls.load, "__module__", "")
    if home.startswith(f"{_ROOM}.") and home != f"{_ROOM}.encoder_head":
        raise ServableError(
            f"{folder} cannot be loaded as {cls.__name__}: its load() runs what the files say; override it"
        )
    return home == f"{_ROOM}.encoder_head"


def _described(head: nn.Module) -> tuple[Entry, dict[str, Any], Mapping[str, Tensor] | None]:
    """Class, settings and weights there; the weights are None where the layers themselves are kept."""
    if not isinstance(head, EncoderHead):
        return class_entry(head), head.get_config_dict(), head.state_dict()  # type: ignore[operator]
    if type(head) is LinearHead:
        return _described_linear(head)
    name = type(head).__name__
    if name not in HOMES or type(head) is not getattr(heads, name):
        raise ConfigError(f"it has no such head; it has {', '.join(HOMES)}, and LinearHead as one of these")
    entry = {"module": f"{_ROOM}.{HOMES[name]}", "class": name}
    if type(head) is SequentialHead:
        return entry, {"output_size": head.output_size}, None
    if type(head) is SwitchHead:
        return entry, *_described_switch(head)
    return entry, head.get_config_dict(), head.state_dict()


def _described_linear(head: LinearHead) -> tuple[Entry, dict[str, Any], dict[str, Tensor]]:
    settings = {
        "input_embedding_size": head.input_embedding_size,
        "dropout": head.get_config_dict()["dropout"],
        "output_sizes": [head.output_size],
        "activation_fn": "relu",  # stands between layers: never used with one
    }
    weight = head.linear.weight
    bias = torch.zeros(head.output_size, dtype=weight.dtype) if head.linear.bias is None else head.linear.bias
    entry = {"module": f"{_ROOM}.{HOMES['StackedProjectionHead']}", "class": "StackedProjectionHead"}
    return entry, settings, {"_stack.0.weight": weight, "_stack.0.bias": bias}


def _described_switch(head: SwitchHead) -> tuple[dict[str, Any], dict[str, Tensor]]:
    options, weights = {}, {}
    for name, option in head.options.items():
        entry, settings, own = _described(option)
        if own is None or entry["class"] in _NEVER_NESTED:
            raise ConfigError(f"option {name!r} is {entry_name(entry)}, which it cannot load inside a SwitchHead")
        options[name] = {"config": settings, "class": entry}
        weights.update({f"{name}.{key}": weight for key, weight in own.items()})
    return {"heads": options, "input_embedding_size": head.input_embedding_size}, weights


def _layers_of(head: SequentialHead) -> list[nn.Module]:
    settings = head.get_config_dict()  # raises where layers share weights
    # Theirs has no dropout of its own: the same as a first layer.
    return [*([nn.Dropout(settings["dropout"])] if settings["dropout"] else []), *head]
