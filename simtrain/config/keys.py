"""The schema as a list of keys: what each is called, of which type it is, its default, and a line on what it does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, dataclass, fields, is_dataclass
from typing import Any, cast, get_type_hints

from omegaconf import MISSING

from simtrain.config.limits import Limit
from simtrain.config.schema import Config

_TYPES = {
    "int": "integer",
    "float": "number",
    "str": "text",
    "bool": "true or false",
    "Any": "anything",
    "None": "null",
}
_JSON_TYPES = {"int": "integer", "float": "number", "str": "string", "bool": "boolean", "None": "null"}


@dataclass(frozen=True)
class Key:
    """One key of a config.

    Attributes:
        name: With dots: ``training.epochs``.
        type: In words: ``number or null``.
        default: Its default; None for null.
        required: Whether a job needs a value for it.
        doc: What it does.
        limit: What its value may be, beyond the type.
        json_type: Types in the words of JSON Schema; empty for any.
    """

    name: str
    type: str
    default: Any
    required: bool
    doc: str
    limit: Limit | None
    json_type: tuple[str, ...]


def schema_keys(section: type = Config, prefix: str = "") -> Iterator[Key]:
    """All keys of the schema, in its order, sections one after the other.

    Args:
        section: A dataclass of the schema.
        prefix: What stands before its keys.

    Yields:
        A description of each key that has a value of its own.

    Example:
        >>> next(key for key in schema_keys() if key.name == "training.epochs").type
        'integer'
    """
    hints, docs = get_type_hints(section), attribute_docs(section)
    for one in fields(section):
        if is_dataclass(hints[one.name]):
            yield from schema_keys(cast("type", hints[one.name]), f"{prefix}{one.name}.")
            continue
        default, words = _default(one), str(one.type).split(" | ")
        yield Key(
            name=prefix + one.name,
            type=" or ".join(map(_type_word, words)),
            default=None if default == MISSING else default,
            required=default == MISSING,
            doc=docs.get(one.name, ""),
            limit=one.metadata.get("limit"),
            json_type=() if "Any" in words else tuple(_json_type(word) for word in words),
        )


def section_docs(section: type = Config) -> dict[str, str]:
    """Section → the first line on it, for the sections of a dataclass.

    Example:
        >>> section_docs()["training"]
        'How the training loop runs.'
    """
    hints = get_type_hints(section)
    return {name: (hint.__doc__ or "").partition("\n")[0] for name, hint in hints.items() if is_dataclass(hint)}


def attribute_docs(section: type) -> dict[str, str]:
    """Field → what the dataclass's docstring says about it under ``Attributes``, in one line without markup.

    Example:
        >>> attribute_docs(Config)["seed"]
        'Seed of every random choice.'
    """
    text = (section.__doc__ or "").partition("Attributes:\n")[2]
    docs: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        found = re.match(r" {8}(\w+): (.*)", line)
        if found:
            name, docs[found[1]] = found[1], found[2]
        elif line.startswith(" " * 12) and name:
            docs[name] += " " + line.strip()
        elif line.strip():
            break
    return {name: _without_markup(doc) for name, doc in docs.items()}


def json_schema() -> dict[str, Any]:
    """The schema in the words of JSON Schema (draft 2020-12), for editors and other programs.

    Example:
        >>> json_schema()["properties"]["training"]["properties"]["epochs"]["minimum"]
        1
    """
    root = _object((Config.__doc__ or "").partition("\n")[0])
    for key in schema_keys():
        *path, name = key.name.split(".")
        node = root
        for section in path:
            doc = section_docs()[section]
            node = node["properties"].setdefault(section, _object(doc))
        node["properties"][name] = _json_key(key)
        if key.required:
            node.setdefault("required", []).append(name)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A simtrain job", **root}


def _object(doc: str) -> dict[str, Any]:
    return {"type": "object", "description": doc, "properties": {}, "additionalProperties": False}


def _json_key(key: Key) -> dict[str, Any]:
    value: dict[str, Any] = {"description": key.doc}
    if key.json_type:
        value["type"] = list(key.json_type) if len(key.json_type) > 1 else key.json_type[0]
    if not key.required:
        value["default"] = key.default
    if key.limit is not None:
        value |= key.limit.json_schema()
    return value


def _default(one: Field[Any]) -> Any:
    if one.default is not NO_DEFAULT:
        return one.default
    return one.default_factory() if one.default_factory is not NO_DEFAULT else MISSING


def _type_word(word: str) -> str:
    return _TYPES.get(word, "list" if word.startswith("list") else "mapping")


def _json_type(word: str) -> str:
    return _JSON_TYPES.get(word, "array" if word.startswith("list") else "object")


def _without_markup(text: str) -> str:
    return re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text).replace("``", "")
