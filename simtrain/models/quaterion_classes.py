"""Names of classes in a folder of quaterion-models: ``{"module": ..., "class": ...}``, and who may be loaded."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import nn

from simtrain.encoders.saved_classes import qualified_name
from simtrain.errors import ServableError

Entry = dict[str, str]


def class_entry(part: nn.Module) -> Entry:
    """The entry of a part's own class.

    Raises:
        ServableError: The class is defined inside something else, where quaterion-models does not look.

    Example:
        >>> class_entry(nn.ReLU())
        {'module': 'torch.nn.modules.activation', 'class': 'ReLU'}
    """
    cls = type(part)
    if "." in cls.__qualname__:
        raise ServableError(
            f"{qualified_name(cls)!r} cannot be found by quaterion-models: define the class at the top of its module"
        )
    return {"module": cls.__module__, "class": cls.__qualname__}


def is_entry(entry: Any) -> bool:
    """Whether ``entry`` names a module and a class."""
    return isinstance(entry, dict) and all(isinstance(entry.get(word), str) for word in ("module", "class"))


def entry_name(entry: Entry) -> str:
    """Both words as one.

    Example:
        >>> entry_name({"module": "shop.encoders", "class": "Shoes"})
        'shop.encoders:Shoes'
    """
    return f"{entry['module']}:{entry['class']}"


def class_of(entry: Entry, allow: Collection[type], kind: str, folder: Path) -> type[Any]:
    """The class that an entry names: one that the caller allows. Nothing is imported.

    Args:
        entry: Names a module and a class. A class of another module counts where no other has its name: it may have
            moved since.
        allow: Classes that may be loaded.
        kind: What is looked for, for messages.
        folder: The model's folder, for messages.

    Raises:
        ServableError: The class is not allowed.
    """
    exact = [cls for cls in allow if qualified_name(cls) == entry_name(entry)]
    alike = {cls for cls in allow if cls.__qualname__ == entry["class"]}
    if exact or len(alike) == 1:
        return exact[0] if exact else alike.pop()
    instead = f', or encoders={{"NAME": {entry["class"]}(...)}}' if kind == "encoder" else ""
    raise ServableError(
        f"{folder} holds the {kind} {entry_name(entry)!r}, and no code is loaded from files: import the class and "
        f"pass load(..., allow=[{entry['class']}]){instead}"
    )
