"""Reading one part of a saved model from its folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from simtrain.errors import ServableError
from simtrain.heads.encoder_head import EncoderHead, load_head


def load_part(cls: type[Any], folder: Path) -> nn.Module:
    """Load an encoder or a head of a class that may be loaded.

    Raises:
        ServableError: The folder does not hold one, or is damaged.
    """
    with refusing(cls, folder):
        # A head of quaterion-models would read a pickle.
        part: nn.Module = load_head(cls, folder) if _is_foreign_head(cls) else cls.load(str(folder))
        return part


def fill_part(encoder: nn.Module, folder: Path) -> nn.Module:
    """Read the weights in ``folder`` into an encoder that the caller has built.

    Raises:
        ServableError: The encoder cannot take them.
    """
    if not hasattr(encoder, "load_weights"):
        raise ServableError(
            f"the given {type(encoder).__name__} cannot take the weights in {folder}: no load_weights()"
        )
    encoder.load_weights(folder)  # type: ignore[operator]
    return encoder


@contextmanager
def refusing(cls: type[Any], folder: Path) -> Iterator[None]:
    """Turn whatever goes wrong inside into a :class:`ServableError` that names ``folder`` and ``cls``."""
    try:
        yield
    except ServableError:
        raise
    except Exception as error:  # a class of the user's may raise anything
        raise ServableError(f"{folder} cannot be loaded as {cls.__name__}: {type(error).__name__}: {error}") from error


def _is_foreign_head(cls: type) -> bool:
    return hasattr(cls, "output_size") and not issubclass(cls, EncoderHead)
