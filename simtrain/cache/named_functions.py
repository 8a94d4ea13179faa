"""Functions that a config names: ``augment: drop_a_word`` in the place of a function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from simtrain.errors import ConfigError, nearest
from simtrain.registry import Registry


def named_functions(known: Registry, given: Any) -> Any:
    """What a setting gives, with functions in the place of their names.

    Args:
        known: The registry that the names are in.
        given: A function, its name, ``{"type": name, **settings}``, or any of these by encoder name.

    Returns:
        A function, or functions by encoder name; what is neither is given back for the caller to refuse.

    Raises:
        UnknownNameError: No function has that name.
        ConfigError: It does not take one of the settings.

    Example:
        >>> functions = Registry("augment function")
        >>> @functions.register_module()
        ... def shout(text, mark="!"):
        ...     return text.upper() + mark
        >>> named_functions(functions, "shout")("a shoe")
        'A SHOE!'
        >>> named_functions(functions, {"text": {"type": "shout", "mark": "?"}})["text"]("a shoe")
        'A SHOE?'
    """
    if isinstance(given, str):
        return _function(known, given, {})
    if not isinstance(given, Mapping):
        return given
    if isinstance(given.get("type"), str):
        return _function(known, given["type"], {str(word): value for word, value in given.items() if word != "type"})
    return {name: named_functions(known, function) for name, function in given.items()}


def _function(known: Registry, name: str, settings: dict[str, Any]) -> Callable[..., Any]:
    found = known.get(name)
    if inspect.isclass(found):
        made: Callable[..., Any] = known.build({"type": name, **settings})
        return made
    _check_settings(known.kind, name, found, settings)
    return functools.partial(found, **settings) if settings else found


def _check_settings(kind: str, name: str, function: Callable[..., Any], settings: dict[str, Any]) -> None:
    # The first argument is the item.
    parameters = list(inspect.signature(function).parameters.values())[1:]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    accepted = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for word in settings:
        if word not in accepted:
            raise ConfigError(f"{kind} {name!r} has no setting {word!r}; {nearest(word, accepted)}")
