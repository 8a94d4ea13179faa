"""Heads inside heads: built from configs, checked against each other, described for saving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from simtrain.encoders.positive_size import positive_size
from simtrain.encoders.saved_classes import how_to_allow, known_class, type_name
from simtrain.errors import ConfigError, UnknownNameError, nearest
from simtrain.registry import heads

SIZE = "input_embedding_size"


def is_head(given: Any) -> bool:
    """Whether ``given`` is a head of simtrain, or a module that looks like one (quaterion-models)."""
    return isinstance(given, nn.Module) and hasattr(type(given), "output_size")


def nested_head(given: Any, size: int | None, place: str) -> nn.Module:
    """A head as it is, or built from its config.

    Args:
        given: A head, or ``{"type": name of a registered head, **constructor arguments}``.
        size: Number of dimensions that come in, for a config that does not say.
        place: Where the head stands, for messages.

    Raises:
        ConfigError: ``given`` is neither, or its config is wrong; the message starts with ``place``.

    Example:
        >>> nested_head({"type": "LinearHead", "output_size": 2}, 8, "the query side").output_size
        2
    """
    if is_head(given):
        head: nn.Module = given
        return head
    if not isinstance(given, Mapping):
        raise ConfigError(f"{place} must be a head or its config {{'type': NAME, ...}}, got {type(given).__name__}")
    name = given.get("type")
    allowed = known_class(name, heads) if isinstance(name, str) and name not in heads else None
    # The registry's own message looks through all rooms: too much for a file that is read to serve a model.
    if isinstance(name, str) and name not in heads and allowed is None:
        raise UnknownNameError(
            f"{place}: unknown head type {name!r}; {nearest(name, heads.names())}. A head of your own is known once "
            f"its module is imported, with @registry.heads.register_module() above the class; for a saved model, "
            f"{how_to_allow(name)}"
        )
    try:
        return _built(given, size) if allowed is None else _built_allowed(allowed, given)
    except ConfigError as error:
        raise type(error)(f"{place}: {error}") from error


def _built(config: Mapping[str, Any], size: int | None) -> nn.Module:
    if stated_size(config) is not None:
        head: nn.Module = heads.build(config)
        return head
    words = {word: value for word, value in config.items() if word != SIZE}
    built: nn.Module = heads.build(words) if size is None else heads.build(words, size)
    return built


def _built_allowed(cls: type[Any], config: Mapping[str, Any]) -> nn.Module:
    # What a saved model says of a head is all that its constructor takes.
    words = {word: value for word, value in config.items() if word != "type"}
    try:
        head: nn.Module = cls(**words)
    except TypeError as error:
        raise ConfigError(f"head {cls.__name__!r}: {error}") from error
    return head


def nested_heads(given: Mapping[str, Any], size: int | None) -> tuple[int, dict[str, nn.Module]]:
    """Heads that take the same vectors and give the same number of dimensions.

    Args:
        given: For each place the head or its config.
        size: Number of dimensions that come in. Default: what one of the heads or configs states.

    Returns:
        Number of dimensions that come in, and for each place the head.

    Raises:
        ConfigError: A head or config is wrong, or the sizes differ; the message names the places.
    """
    stated = {place: stated_size(one) for place, one in given.items()}
    known = [one for one in (size, *stated.values()) if one is not None]
    if not known:
        raise ConfigError(f"give {SIZE}; none of {', '.join(given)} states it")
    size = positive_size(SIZE, known[0])
    for place, one in stated.items():
        if one not in (None, size):
            raise ConfigError(f"all must take the same vectors, but {place} takes {one!r} dimensions instead of {size}")
    built = {place: nested_head(one, size, place) for place, one in given.items()}
    outputs = {place: int(head.output_size) for place, head in built.items()}  # type: ignore[arg-type]
    if len(set(outputs.values())) > 1:
        sizes = ", ".join(f"{place} gives {output}" for place, output in outputs.items())
        raise ConfigError(f"all must give the same number of dimensions, but {sizes}")
    return size, built


def stated_size(given: Any) -> Any:
    """The input size that a head or its config states, or None."""
    return given.get(SIZE) if isinstance(given, Mapping) else getattr(given, SIZE, None)


def describe_head(head: nn.Module, place: str) -> dict[str, Any]:
    """The config from which :func:`nested_head` builds ``head`` again.

    A class that is not registered is named with its module; to load it, it has to be registered or allowed.

    Raises:
        ConfigError: The head cannot say what it was built with.

    Example:
        >>> from simtrain.heads import EmptyHead
        >>> describe_head(EmptyHead(3), "layer 0")
        {'type': 'EmptyHead', 'input_embedding_size': 3, 'dropout': 0.0}
    """
    if not hasattr(head, "get_config_dict"):
        raise ConfigError(f"{place} is a {type(head).__name__}, which cannot be saved: it has no get_config_dict()")
    return {"type": type_name(head, heads), **head.get_config_dict()}  # type: ignore[operator]


def refuse_shared_weights(parts: Mapping[str, nn.Module]) -> None:
    """Raise if two parts have a weight in common: built from their configs they would not have.

    Raises:
        ConfigError: They do; the message names both.
    """
    owners: dict[int, str] = {}
    for place, part in parts.items():
        for name, weight in (*part.named_parameters(), *part.named_buffers()):
            owner = owners.setdefault(id(weight), place)
            if owner != place:
                raise ConfigError(
                    f"{owner} and {place} share the weight {name!r}, which a saved head cannot say; give each its own "
                    f"(copy.deepcopy)"
                )
