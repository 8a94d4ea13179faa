"""The head that goes through a wider layer and back."""

from __future__ import annotations

import math
from typing import Any

from simtrain.encoders.positive_size import positive_size
from simtrain.errors import ConfigError
from simtrain.heads.stacked_projection_head import StackedProjectionHead
from simtrain.registry import heads


def widened(input_size: int, factor: float | int) -> int:
    """``input_size`` times ``factor``, rounded down.

    Raises:
        ConfigError: ``factor`` is no positive number, or leaves no dimension.

    Example:
        >>> widened(10, 2.55)
        25
    """
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0.0 < factor < math.inf:
        raise ConfigError(f"expansion_factor must be a positive number, got {factor!r}")
    width = int(input_size * factor)
    if width < 1:
        raise ConfigError(f"expansion_factor {factor!r} leaves none of {input_size} dimensions; give a greater one")
    return width


@heads.register_module()
class WideningHead(StackedProjectionHead):
    """A linear layer to more dimensions, an activation, a linear layer back: narrow, wide, narrow.

    Parameter names (``_stack.i``) are those of quaterion-models; its weights load here and the other way round.

    Args:
        input_embedding_size: Number of dimensions of the joined embeddings of all encoders.
        expansion_factor: How many times as wide as the input the inner layer is; rounded down to whole dimensions.
        activation_fn: Name of the activation in ``torch.nn.functional``.
        dropout: Chance of each input dimension to be zeroed in training, from 0 to below 1.

    Raises:
        ConfigError: An argument is out of its range or unknown.

    Example:
        >>> import torch
        >>> head = WideningHead(8, expansion_factor=2)
        >>> [tuple(parameter.shape) for parameter in head.parameters()]
        [(16, 8), (16,), (8, 16), (8,)]
    """

    def __init__(
        self,
        input_embedding_size: int,
        expansion_factor: float | int = 4.0,
        activation_fn: str = "relu",
        dropout: float | int = 0.0,
    ) -> None:
        size = positive_size("input_embedding_size", input_embedding_size)
        super().__init__(size, [widened(size, expansion_factor), size], activation_fn, dropout)
        self._expansion_factor = expansion_factor

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values; the sizes of the layers follow from the factor."""
        settings = {**super().get_config_dict(), "expansion_factor": self._expansion_factor}
        del settings["output_sizes"]
        return settings
