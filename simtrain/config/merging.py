"""Laying a file's values over the schema's defaults, and wording what does not fit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from simtrain.config.former_keys import former_key
from simtrain.config.keys import schema_keys, section_docs
from simtrain.config.schema import Config
from simtrain.errors import ConfigError, nearest

# A file that names one of these says the whole part: default arguments of another type must not leak into it.
_REPLACED_PARTS = ("head", "optimizer", "pruner")


def merge(given: Mapping[str, Any], schema: type = Config) -> tuple[DictConfig, list[ConfigError]]:
    """Lay values over the defaults.

    Args:
        given: Plain values; interpolations (``${…}``) as text.
        schema: Dataclass that says which keys there are.

    Returns:
        The config with all fields of the schema, and an error for each value that does not fit; in the place of that
        one stands its default.
    """
    sections = {name: value for name, value in given.items() if name in section_docs(schema)}
    # A section whose lines are all commented out is null in YAML.
    odd = {name: value for name, value in sections.items() if not isinstance(value, Mapping)}
    given = {name: value for name, value in given.items() if name not in odd}
    errors = [
        ConfigError(f"the config's section {name!r} should hold keys and values, got {value!r}")
        for name, value in odd.items()
        if value is not None
    ]
    for path, sentence in _wrong_containers(given, schema):
        errors.append(ConfigError(sentence))
        given = _without(given, path)
    while True:
        try:
            return _merged(given, schema), errors
        except OmegaConfBaseException as error:
            path = _place(given, str(error.full_key or error.key or ""))
            for sentence in _sentences(given, path, error, schema):
                errors.append(ConfigError(sentence))
                errors[-1].__cause__ = error
            given = _without(given, path)


def unknown_key(name: str, schema: type = Config) -> str:
    """The sentence on a key that the schema lacks.

    Args:
        name: The key, with dots.
        schema: Dataclass that says which keys there are.

    Example:
        >>> unknown_key("epochs")
        "the config has an unknown key 'epochs'; did you mean 'training.epochs'?"
    """
    words = name.split(".")
    for depth in range(len(words), 0, -1):
        former = former_key(".".join(words[:depth]))
        if former is not None:
            return former
    parent, _, last = name.rpartition(".")
    known = [key.name for key in schema_keys(schema)]
    elsewhere = [key for key in known if key.rpartition(".")[2] == last]
    if elsewhere:
        return f"the config has an unknown key {name!r}; did you mean {elsewhere[0]!r}?"
    prefix = f"{parent}." if parent else ""
    beside = {key.removeprefix(prefix).partition(".")[0] for key in known if key.startswith(prefix)}
    return f"the config has an unknown key {name!r}; {nearest(last, beside)}"


def _merged(given: Mapping[str, Any], schema: type) -> DictConfig:
    defaults = OmegaConf.structured(schema)
    for part in _REPLACED_PARTS:
        if part in defaults and isinstance(given.get(part), Mapping) and "type" in given[part]:
            defaults[part] = {}
    merged = OmegaConf.merge(defaults, given)
    OmegaConf.resolve(merged)
    assert isinstance(merged, DictConfig)
    return merged


def _wrong_containers(given: Mapping[str, Any], schema: type) -> list[tuple[tuple[str, ...], str]]:
    # OmegaConf breaks off at a mapping in a list's place, and words the others by its own classes.
    found = []
    for key in schema_keys(schema):
        path = tuple(key.name.split("."))
        value = _value_or_none(given, path)
        wanted = Mapping if "mapping" in key.type else Sequence if "list" in key.type else None
        text = isinstance(value, str)
        if (
            wanted is None
            or value is None
            or (text and (value == MISSING or "${" in value))
            or (isinstance(value, wanted) and not text)
        ):
            continue
        say = f"it should be a {key.type} ({key.doc.rstrip('.')}), got {value!r}"
        found.append((path, f"the config's value for {key.name!r} does not fit: {say}"))
    return found


def _value_or_none(given: Any, path: tuple[str, ...]) -> Any:
    for word in path:
        given = given.get(word) if isinstance(given, Mapping) else None
    return given


def _place(given: Mapping[str, Any], full_key: str) -> tuple[str, ...]:
    # OmegaConf also names places within lists (losses[0].scale), and what an interpolation leads to.
    path: list[str] = []
    node: Any = given
    for word in re.split(r"[.\[]", full_key):
        if not isinstance(node, Mapping) or word not in map(str, node):
            break
        path.append(word)
        node = next(value for key, value in node.items() if str(key) == word)
    return tuple(path)


def _without(given: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    if not path:  # it cannot be told which value is wrong
        return {}
    first, *rest = path
    return {
        key: _without(value, tuple(rest)) if str(key) == first else value
        for key, value in given.items()
        if rest or str(key) != first
    }


def _sentences(
    given: Mapping[str, Any], path: tuple[str, ...], error: OmegaConfBaseException, schema: type
) -> list[str]:
    name, value = ".".join(path), _value(given, path)
    if path and not _is_known(path, schema):
        # Of a section that is called otherwise here, each key has an answer of its own.
        inner = [former_key(f"{name}.{key}") for key in value] if isinstance(value, Mapping) else []
        return [sentence for sentence in inner if sentence] or [unknown_key(name, schema)]
    reason = str(error).splitlines()[0]
    return [f"the config's value for {name!r} does not fit: {reason} (got {value!r})"]


def _is_known(path: tuple[str, ...], schema: type) -> bool:
    # Below a key of the schema everything is its value; below a section only keys are.
    beginnings = {".".join(path[:depth]) for depth in range(1, len(path) + 1)}
    return ".".join(path) in section_docs(schema) or any(key.name in beginnings for key in schema_keys(schema))


def _value(given: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    node: Any = given
    for word in path:
        node = next(value for key, value in node.items() if str(key) == word)
    return node
