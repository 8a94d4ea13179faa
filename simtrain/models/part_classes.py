"""Names of classes in a saved model, and which of them may be loaded."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from simtrain.errors import ServableError, nearest
from simtrain.registry import Registry


def type_name(part: nn.Module, registry: Registry) -> str:
    """Name under which ``part``'s class is registered; ``"module:class"`` where it is not."""
    for name in registry.names():
        if registry.get(name) is type(part):
            return name
    return qualified_name(type(part))


def qualified_name(cls: type) -> str:
    """Module and name of a class.

    Example:
        >>> qualified_name(Path)
        'pathlib:Path'
    """
    return f"{cls.__module__}:{cls.__qualname__}"


def allowed_class(entry: Mapping[str, Any], registry: Registry, allow: Collection[type], folder: Path) -> type[Any]:
    """The class that a part of a saved model names. Nothing is imported.

    Args:
        entry: ``{"type": name}`` as in ``config.json``.
        registry: Where classes of this kind are registered.
        allow: Classes that the caller allows beside the registered ones.
        folder: The model's folder, for messages.

    Raises:
        ServableError: The class is neither registered nor allowed.
    """
    name = entry["type"]
    if name in registry.names() and isinstance(registry.get(name), type):
        return registry.get(name)  # type: ignore[return-value]
    known = [cls for cls in map(registry.get, registry.names()) if isinstance(cls, type)]
    for cls in (*allow, *known):
        if name in (cls.__name__, qualified_name(cls)):
            return cls
    raise ServableError(
        f"{folder} holds a {registry.kind} of the class {name!r}, which is not registered, and no code is loaded "
        f"from files: import the module that registers it, or pass load(..., allow=[{name.split(':')[-1]}]); "
        f"{nearest(name, registry.names())}"
    )
