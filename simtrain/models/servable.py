"""The folder of a saved model: what is in it, and who may be loaded.

::

    my-model/
        config.json            names the parts folder and the classes
        README.md              the model card, for people; nothing is read from it
        parts-1a2b3c4d5e6f/
            encoders/text/...
            head/...
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from simtrain import registry
from simtrain.encoders.saved_classes import allowing, saved_class, type_name
from simtrain.encoders.saved_encoder import Ready, check_names, load_encoder
from simtrain.errors import ConfigError, ServableError, nearest
from simtrain.heads.encoder_head import EncoderHead, save_head
from simtrain.models.card_file import CARD_FILE, may_be_replaced
from simtrain.models.folder_commit import FolderFormat
from simtrain.models.joined_encoders import check_name
from simtrain.models.part_files import load_part
from simtrain.models.quaterion_format import is_quaterion_folder, load_quaterion, save_quaterion

MODEL_FOLDER = FolderFormat(
    "simtrain-similarity-model", version=1, file="config.json", prefix="parts", beside=(CARD_FILE,)
)


def save_model(path: Path, format: str, encoders: Mapping[str, nn.Module], head: nn.Module, card: str) -> None:
    """Write a model into the folder ``path``; see :meth:`SimilarityModel.save`.

    Raises:
        ConfigError: There is no such format.
        ServableError: The folder cannot be written to, or a part has no counterpart in the format.
    """
    writers = {"simtrain": save_parts, "quaterion": save_quaterion}
    if format not in writers:
        raise ConfigError(f"unknown format {format!r}; {nearest(str(format), writers)}")
    writers[format](path, encoders, head, card)


def load_model(
    path: Path, allow: Collection[type], ready_encoders: Mapping[str, Ready]
) -> tuple[dict[str, nn.Module], nn.Module]:
    """Read the encoders and the head from a folder of any known format; see :meth:`SimilarityModel.load`.

    Raises:
        ServableError: A file is missing or damaged, or names a class that may not be loaded.
    """
    with allowing(allow):
        if is_quaterion_folder(path):
            return load_quaterion(path, allow, ready_encoders)
        return load_parts(path, ready_encoders)


def save_parts(path: Path, encoders: Mapping[str, nn.Module], head: nn.Module, card: str) -> None:
    """Write a model and its card in the format of simtrain. A README.md that is the user's own stays as it is.

    Raises:
        ServableError: ``path`` is a file or holds a ``config.json`` of something else.
    """
    settings = {
        "encoders": {name: {"type": type_name(encoder, registry.encoders)} for name, encoder in encoders.items()},
        "head": {"type": type_name(head, registry.heads)},
    }
    beside = {CARD_FILE: card} if may_be_replaced(path / CARD_FILE) else {}
    MODEL_FOLDER.commit(path, settings, lambda parts: _write_parts(parts, encoders, head), beside)


def load_parts(path: Path, ready_encoders: Mapping[str, Ready]) -> tuple[dict[str, nn.Module], nn.Module]:
    """Read the encoders and the head that :func:`save_parts` wrote.

    Raises:
        ServableError: A file is missing or damaged, or names a class that may not be loaded.
    """
    config, parts = MODEL_FOLDER.read(path)
    _check_entries(config, path / MODEL_FOLDER.file)
    check_names(ready_encoders, config["encoders"], path)
    # All classes are checked before any file of any part is read.
    classes = {
        name: saved_class(entry["type"], registry.encoders, path)
        for name, entry in config["encoders"].items()
        if not isinstance(ready_encoders.get(name), nn.Module)
    }
    head_class = saved_class(config["head"]["type"], registry.heads, path)
    encoders = {
        name: load_encoder(classes.get(name), parts / "encoders" / name, ready_encoders.get(name))
        for name in config["encoders"]
    }
    return encoders, load_part(head_class, parts / "head")


def _write_parts(parts: Path, encoders: Mapping[str, nn.Module], head: nn.Module) -> None:
    for name, encoder in encoders.items():
        folder = parts / "encoders" / name
        folder.mkdir(parents=True)
        encoder.save(str(folder))  # type: ignore[operator]
    (parts / "head").mkdir()
    # A head of quaterion-models would save itself as a pickle.
    if isinstance(head, EncoderHead):
        head.save(parts / "head")
    else:
        save_head(head, parts / "head")


def _check_entries(settings: Mapping[str, Any], file: Path) -> None:
    encoders = settings.get("encoders")
    if not isinstance(encoders, dict) or not encoders:
        raise ServableError(f"{file} names no encoders, it says {encoders!r:.80}")
    for name in encoders:
        try:
            check_name(name)
        except ConfigError as error:
            raise ServableError(f"{file}: {error}") from error
    for entry in (*encoders.values(), settings.get("head")):
        if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
            raise ServableError(f"{file} must give each part as {{'type': NAME}}, got {entry!r:.80}")
