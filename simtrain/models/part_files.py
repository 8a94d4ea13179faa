"""Reading one part of a saved model from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from simtrain.encoders.saved_encoder import refusing
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


def _is_foreign_head(cls: type) -> bool:
    return hasattr(cls, "output_size") and not issubclass(cls, EncoderHead)
