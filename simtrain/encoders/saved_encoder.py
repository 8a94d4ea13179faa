"""Reading a saved encoder: built from its folder, or into one that the caller has built."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from simtrain.errors import ServableError, nearest

#: An encoder that the caller has built, or, for an encoder that has others inside, such ones by name.
Ready = nn.Module | Mapping[str, Any]


def load_encoder(cls: type[Any] | None, folder: Path, ready: Ready | None = None) -> nn.Module:
    """Read an encoder from its folder.

    Args:
        cls: Its class; None where ``ready`` is the encoder itself.
        folder: Where its ``save`` wrote.
        ready: What the caller has built. Default: nothing, all comes from the folder.

    Raises:
        ServableError: The folder does not hold one, is damaged, or does not fit ``ready``.
    """
    if cls is None or isinstance(ready, nn.Module):
        return fill_encoder(ready, folder)
    if ready is not None and not isinstance(ready, Mapping):
        raise ServableError(f"for the {cls.__name__} in {folder} give an encoder that is built, got {ready!r:.80}")
    with refusing(cls, folder):
        if not ready:
            loaded: nn.Module = cls.load(str(folder))
            return loaded
        if "encoders" not in inspect.signature(cls.load).parameters:
            raise ServableError(
                f"{folder} holds a {cls.__name__}, which has no encoders inside; give the encoder itself instead of "
                f"{sorted(ready)} by name"
            )
        switch: nn.Module = cls.load(str(folder), encoders=ready)
        return switch


def fill_encoder(encoder: Any, folder: Path) -> nn.Module:
    """Read what was saved in ``folder`` into an encoder that the caller has built.

    Raises:
        ServableError: The encoder cannot take it.
    """
    if not hasattr(encoder, "load_weights"):  # one of quaterion-models, say
        raise ServableError(
            f"the given {type(encoder).__name__} cannot take the weights in {folder}: no load_weights()"
        )
    with refusing(type(encoder), folder):
        encoder.load_weights(folder)
    filled: nn.Module = encoder
    return filled


def check_names(ready: Mapping[str, Any], saved: Mapping[str, Any], folder: Path) -> None:
    """Raise if the caller gives an encoder that the folder does not have.

    Raises:
        ServableError: He does; the message names it.
    """
    for name in sorted(set(ready) - set(saved), key=str):
        raise ServableError(f"{folder} has no encoder {name!r}; {nearest(str(name), saved)}")


@contextmanager
def refusing(cls: type[Any], folder: Path) -> Iterator[None]:
    """Turn whatever goes wrong inside into a :class:`ServableError` that names ``folder`` and ``cls``."""
    try:
        yield
    except ServableError:
        raise
    except Exception as error:  # a class of the user's may raise anything
        raise ServableError(f"{folder} cannot be loaded as {cls.__name__}: {type(error).__name__}: {error}") from error
