"""Names of classes in saved models, and which of them may be loaded. Nothing is ever imported."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from simtrain.errors import ServableError, nearest
from simtrain.registry import Registry

# Parts lie within parts, and heads are built from their configs by their constructors: no argument reaches them all.
_ALLOWED: ContextVar[tuple[type, ...]] = ContextVar("simtrain classes that may be loaded", default=())


@contextmanager
def allowing(classes: Collection[type]) -> Iterator[None]:
    """Let saved models name ``classes``, beside the registered ones, for as long as this context lasts.

    Example:
        >>> from simtrain import registry
        >>> with allowing([Path]):
        ...     known_class("pathlib:Path", registry.heads)
        <class 'pathlib.Path'>
        >>> known_class("pathlib:Path", registry.heads) is None
        True
    """
    token = _ALLOWED.set((*_ALLOWED.get(), *classes))
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def type_name(part: object, registry: Registry) -> str:
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


def known_class(name: str, registry: Registry) -> type[Any] | None:
    """The class that a saved part names, if it is registered or allowed (:func:`allowing`).

    An allowed class of another module counts where no other has its name: a script's ``__main__:Head`` is
    ``shop.heads:Head`` for whoever imports it.
    """
    if name in registry and isinstance(registry.get(name), type):
        return registry.get(name)  # type: ignore[return-value]
    allowed = _ALLOWED.get()
    registered = [cls for cls in map(registry.get, registry.names()) if isinstance(cls, type)]
    for cls in (*allowed, *registered):
        if name in (cls.__name__, qualified_name(cls)):
            return cls
    alike = {cls for cls in allowed if cls.__qualname__ == name.partition(":")[2]}
    return alike.pop() if len(alike) == 1 else None


def saved_class(name: str, registry: Registry, place: Path) -> type[Any]:
    """The class that a saved part names.

    Args:
        name: As :func:`type_name` gave it.
        registry: Where classes of this kind are registered.
        place: The model's folder or file, for messages.

    Raises:
        ServableError: The class is neither registered nor allowed.
    """
    cls = known_class(name, registry)
    if cls is None:
        raise ServableError(
            f"{place} holds {_one(registry.kind)} of the class {name!r}, which is not registered, and no code is "
            f"loaded from files: {how_to_allow(name)}; {nearest(name, registry.names())}"
        )
    return cls


def how_to_allow(name: str) -> str:
    """Word what to do for a class that may not be loaded.

    Example:
        >>> how_to_allow("shop.heads:Shoes")
        'import the module that registers it, or pass load(..., allow=[Shoes])'
    """
    return f"import the module that registers it, or pass load(..., allow=[{name.split(':')[-1]}])"


def _one(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
