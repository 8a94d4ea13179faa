"""The encoder of items that are vectors already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from simtrain.encoders.encoder import CollateFn, Encoder
from simtrain.encoders.positive_size import positive_size
from simtrain.encoders.settings_file import build_from_settings, read_settings, write_settings
from simtrain.encoders.stacking import StackVectors
from simtrain.registry import encoders


@encoders.register_module()
class PrecomputedEncoder(Encoder):
    """Passes vectors on that were computed elsewhere. Never trained.

    Args:
        embedding_size: Number of elements of each vector.

    Raises:
        ConfigError: ``embedding_size`` is not a positive integer.

    Example:
        >>> encoder = PrecomputedEncoder(3)
        >>> encoder(encoder.get_collate_fn()([[1, 2, 3], [4, 5, 6]]))
        tensor([[1., 2., 3.],
                [4., 5., 6.]])
    """

    def __init__(self, embedding_size: int) -> None:
        super().__init__()
        self._embedding_size = positive_size("embedding_size", embedding_size)

    @property
    def trainable(self) -> bool:
        """Always False: there is nothing to train."""
        return False

    @property
    def embedding_size(self) -> int:
        """Number of elements of each vector."""
        return self._embedding_size

    def get_collate_fn(self) -> CollateFn:
        """Function that stacks lists, arrays or tensors of ``embedding_size`` numbers as float32."""
        return StackVectors(self._embedding_size)

    def forward(self, batch: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``batch``."""
        return batch

    def get_config_dict(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"embedding_size": self._embedding_size}

    def save(self, output_path: str | Path) -> None:
        """Write ``encoder.json`` into an existing folder."""
        write_settings(Path(output_path) / "encoder.json", self.get_config_dict())

    @classmethod
    def load(cls, input_path: str | Path) -> PrecomputedEncoder:
        """Rebuild the encoder from a folder that :meth:`save` wrote.

        Raises:
            ServableError: ``encoder.json`` is missing or damaged.
        """
        settings = read_settings(Path(input_path) / "encoder.json")
        return build_from_settings(cls, settings, Path(input_path) / "encoder.json")
