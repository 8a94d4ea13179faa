"""Encoders in the format of quaterion-models."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from simtrain.encoders.saved_classes import qualified_name
from simtrain.encoders.saved_encoder import Ready, load_encoder, refusing
from simtrain.encoders.settings_file import read_settings
from simtrain.errors import ConfigError, ServableError
from simtrain.models.joined_encoders import check_name
from simtrain.models.part_files import load_part
from simtrain.models.quaterion_classes import Entry, class_entry, class_of, entry_name, is_entry
from simtrain.models.quaterion_encoder import FOLDER, RegisteredEncoder, registered_class

OWN_ENTRY: Entry = {"module": RegisteredEncoder.__module__, "class": RegisteredEncoder.__qualname__}
_SWITCH = "quaterion_models.encoders.switch_encoder:SwitchEncoder"
_CALLED = ("disable_gradients_if_required", "get_meta_extractor", "save", "load")

Read = Callable[[], nn.Module]


def encoder_reader(entry: Entry, folder: Path, allow: Collection[type]) -> Read:
    """Check the classes of a saved encoder, and return the function that reads it.

    Raises:
        ServableError: A class is not allowed.
    """
    if entry == OWN_ENTRY:
        return partial(load_part, registered_class(folder), folder / FOLDER)
    cls = class_of(entry, allow, "encoder", folder)
    return _switch_reader(cls, folder, allow) if _imports_from_files(cls) else partial(load_part, cls, folder)


def ready_reader(ready: Ready, entry: Entry, folder: Path) -> Read:
    """The function that gives an encoder that the caller has built, filled if the folder holds one of simtrain's.

    What an encoder of quaterion-models has saved is in files of its own kind: the given one is used as it is.

    Raises:
        ServableError: A class is not allowed, or encoders by name are given for one that has none inside.
    """
    if entry == OWN_ENTRY:
        cls = None if isinstance(ready, nn.Module) else registered_class(folder)
        return partial(load_encoder, cls, folder / FOLDER, ready)
    if not isinstance(ready, nn.Module):
        raise ServableError(f"{folder} holds {entry_name(entry)}: give the encoder itself, not {sorted(ready)} by name")
    return lambda: ready


def write_encoder(name: str, encoder: nn.Module, folder: Path) -> Entry:
    """Write an encoder as quaterion-models reads it, and return the entry of its class there.

    Raises:
        ServableError: It could not be loaded there.
    """
    if all(hasattr(type(encoder), word) for word in _CALLED):
        entry = class_entry(encoder)
        encoder.save(str(folder))  # type: ignore[operator]
        return entry
    try:
        RegisteredEncoder(encoder).save(folder)
        # Nobody can hand over a module there: what does not load by itself is found out here.
        RegisteredEncoder.load(folder)
    except ServableError as error:
        raise ServableError(f"the encoder {name!r} cannot be saved for quaterion-models: {error}") from error
    return OWN_ENTRY


def _imports_from_files(cls: type[Any]) -> bool:
    is_switch = any(qualified_name(base) == _SWITCH for base in cls.__mro__)
    return is_switch and getattr(cls.load, "__module__", "").startswith("quaterion_models.")


def _switch_reader(cls: type[Any], folder: Path, allow: Collection[type]) -> Read:
    file = folder / "config.json"
    entries = read_settings(file).get("encoders")
    if not isinstance(entries, dict) or not entries or not all(map(is_entry, entries.values())):
        raise ServableError(f"{file} must give a module and a class for each of 'encoders', got {entries!r:.120}")
    try:
        options = {name: encoder_reader(entry, folder / check_name(name), allow) for name, entry in entries.items()}
    except ConfigError as error:
        raise ServableError(f"{file}: {error}") from error

    def read() -> nn.Module:
        with refusing(cls, folder):
            encoder: nn.Module = cls(options={name: read_option() for name, read_option in options.items()})
            return encoder

    return read
