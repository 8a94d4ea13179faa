"""Settings of a saved part, kept as a JSON object in its folder."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from simtrain.errors import ConfigError, ServableError, nearest

T = TypeVar("T")


def write_settings(file: Path, settings: Mapping[str, Any]) -> None:
    """Write ``settings`` as JSON.

    Raises:
        ServableError: A value is none that JSON knows; the message names the file.
    """
    try:
        text = json.dumps(dict(settings), indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ServableError(f"{file} cannot be written: settings must be JSON values ({error})") from error
    file.write_text(text + "\n", encoding="utf-8")


def read_json(file: Path) -> Any:
    """Read a JSON file.

    Raises:
        ServableError: The file is missing or damaged; the message names it.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ServableError(f"{file} is missing; the folder is incomplete or not one that simtrain saved") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ServableError(f"{file} cannot be read as JSON ({error}); save it again") from error


def read_settings(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ServableError: The file is missing or is no JSON object; the message names the file.
    """
    settings = read_json(file)
    if not isinstance(settings, dict):
        raise ServableError(f"{file} must hold a JSON object, got {type(settings).__name__}; save it again")
    return settings


def files_in(folder: Path) -> set[str]:
    """Paths of all files in a folder and its folders, relative to it, with slashes."""
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def check_files(folder: Path, names: Collection[str]) -> None:
    """Raise if a file is missing that was there when the folder was saved.

    Without its tokenizer's file, for one, a model would load with another tokenizer and give other embeddings.

    Raises:
        ServableError: One is missing; the message names it.
    """
    for file in sorted(set(names) - files_in(folder)):
        raise ServableError(f"{folder / file} is missing; copy the whole folder or save the model again")


def build_from_settings(cls: type[T], settings: Mapping[str, Any], file: Path) -> T:
    """Call ``cls(**settings)``.

    Raises:
        ServableError: A setting is unknown, missing or wrong; the message names ``file``, where they came from.
    """
    accepted = inspect.signature(cls).parameters
    for key in settings:
        if key not in accepted:
            raise ServableError(f"{file} has the unknown setting {key!r}; {nearest(key, accepted)}")
    try:
        return cls(**settings)
    except (TypeError, ConfigError) as error:
        raise ServableError(f"{file} does not describe a {cls.__name__}: {error}") from error


# What training does with an encoder says nothing of its embeddings; a class may have another name by now, and whether
# weights fit it is seen when they are read.
_MAY_DIFFER = frozenset({"backbone", "module", "sparse", "trainable"})
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def check_same_settings(saved: Mapping[str, Any], given: Mapping[str, Any], kind: str, file: Path) -> None:
    """Raise if an encoder that the caller has built would embed otherwise than the saved one.

    Args:
        saved: Settings of the saved encoder.
        given: Those of the given one. What only one of them has is not compared.
        kind: The given one's class, for the message.
        file: Where ``saved`` comes from, for the message.

    Raises:
        ServableError: A setting differs; the message names it.

    Example:
        >>> check_same_settings({"image_size": 224}, {"image_size": 96}, "VisionEncoder", Path("encoder.json"))
        Traceback (most recent call last):
        ...
        simtrain.errors.ServableError: encoder.json was saved with image_size 224, but the given VisionEncoder has 96...
    """
    for name in [name for name in saved if name in given and name not in _MAY_DIFFER]:
        if _comparable(name, saved[name]) != _comparable(name, given[name]):
            raise ServableError(
                f"{file} was saved with {name} {saved[name]!r}, but the given {kind} has {given[name]!r}: it would "
                f"give other embeddings; build it with the saved one's settings"
            )


def _comparable(name: str, value: Any) -> Any:
    if name != "transform" or not isinstance(value, str):
        return json.loads(json.dumps(value))
    # A function's name without its module, which is "__main__" in the script that trained.
    function, colon, looks = value.partition(": ")
    return function.rpartition(".")[2] + colon + _ADDRESS.sub("", looks)
