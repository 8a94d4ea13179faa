"""Folders of quaterion-models, read without that package and written for it.

::

    my-model/
        config.json            {"encoders": [{"key", "module", "class"}, ...], "head": {"module", "class"}}
        encoders/text/...
        head/config.json, head/weights.bin
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from simtrain.encoders.saved_encoder import Ready, check_names
from simtrain.encoders.settings_file import read_settings, write_settings
from simtrain.errors import ConfigError, ServableError
from simtrain.models.card_file import CARD_FILE
from simtrain.models.joined_encoders import check_name
from simtrain.models.new_folder import write_new_folder
from simtrain.models.quaterion_classes import Entry, is_entry
from simtrain.models.quaterion_encoders import encoder_reader, ready_reader, write_encoder
from simtrain.models.quaterion_heads import head_class, read_head, write_head

CONFIG_FILE = "config.json"
# Each encoder becomes an attribute of their model.
_TAKEN = {"collate_fn", "encode", "encoders", "get_collate_fn", "get_encoders_output_size", "head", "load", "save"}


def is_quaterion_folder(path: Path) -> bool:
    """Whether ``quaterion_models.SimilarityModel.save`` wrote the folder ``path``, or something that looks like it."""
    try:
        config = read_settings(path / CONFIG_FILE)
    except ServableError:
        return False
    return "format" not in config and isinstance(config.get("encoders"), list) and "head" in config


def load_quaterion(
    path: Path, allow: Collection[type], ready_encoders: Mapping[str, Ready]
) -> tuple[dict[str, nn.Module], nn.Module]:
    """Read the encoders and the head of a folder of quaterion-models; see :meth:`SimilarityModel.load`.

    No module that the files name is imported, and nothing is unpickled but tensors and layers of ``torch.nn``. What
    an allowed encoder's own ``load`` does with its files is its own matter.

    Raises:
        ServableError: A file is missing or damaged, or names a class that may not be loaded.
    """
    entries, head_entry = _entries(read_settings(path / CONFIG_FILE), path / CONFIG_FILE)
    check_names(ready_encoders, entries, path)
    # All classes are checked before any weight is read.
    head_type = head_class(head_entry, allow, path)
    readers = {
        name: ready_reader(ready_encoders[name], entry, path / "encoders" / name)
        if name in ready_encoders
        else encoder_reader(entry, path / "encoders" / name, allow)
        for name, entry in entries.items()
    }
    return {name: read() for name, read in readers.items()}, read_head(head_type, path / "head", allow)


def save_quaterion(path: Path, encoders: Mapping[str, nn.Module], head: nn.Module, card: str) -> None:
    """Write a new folder that ``quaterion_models.SimilarityModel.load`` reads; see :meth:`SimilarityModel.save`.

    Raises:
        ServableError: ``path`` is not new or empty, or a part has no counterpart there.
    """
    for name in encoders:
        if name in _TAKEN or hasattr(nn.Module(), name):
            raise ServableError(f"an encoder named {name!r} cannot be loaded by quaterion-models; give it another name")
    write_new_folder(path, lambda folder: _write(folder, encoders, head, card))


def _write(folder: Path, encoders: Mapping[str, nn.Module], head: nn.Module, card: str) -> None:
    entries = []
    for name, encoder in encoders.items():
        (folder / "encoders" / name).mkdir(parents=True)
        entries.append({"key": name, **write_encoder(name, encoder, folder / "encoders" / name)})
    (folder / "head").mkdir()
    head_entry = write_head(head, folder / "head")
    write_settings(folder / CONFIG_FILE, {"encoders": entries, "head": head_entry})
    (folder / CARD_FILE).write_text(card, encoding="utf-8")


def _entries(config: dict[str, Any], file: Path) -> tuple[dict[str, Entry], Entry]:
    found: dict[str, Entry] = {}
    for entry in config["encoders"]:
        if not is_entry(entry):
            raise ServableError(f"{file} must give a key, a module and a class for each encoder, got {entry!r:.120}")
        try:
            name = check_name(entry.get("key"))
        except ConfigError as error:
            raise ServableError(f"{file}: {error}") from error
        if name in found:
            raise ServableError(f"{file} has two encoders of the key {name!r}")
        found[name] = {"module": entry["module"], "class": entry["class"]}
    if not found or not is_entry(config["head"]):
        raise ServableError(f"{file} must name one or more encoders and a head, got {config!r:.160}")
    return found, config["head"]
