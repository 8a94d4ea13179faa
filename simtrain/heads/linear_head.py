"""The head made of one linear map."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from simtrain.encoders.positive_size import positive_size
from simtrain.heads.encoder_head import EncoderHead
from simtrain.registry import heads


@heads.register_module()
class LinearHead(EncoderHead):
    """Projects the vectors onto another number of dimensions: ``W x + b``.

    Args:
        input_embedding_size: Number of dimensions of the joined embeddings of all encoders.
        output_size: Number of dimensions to give.
        bias: Whether ``b`` is there.
        dropout: Chance of each input dimension to be zeroed in training, from 0 to below 1.

    Raises:
        ConfigError: An argument is out of its range.

    Example:
        >>> import torch
        >>> LinearHead(8, output_size=2)(torch.zeros(3, 8)).shape
        torch.Size([3, 2])
    """

    def __init__(
        self, input_embedding_size: int, output_size: int, bias: bool = True, dropout: float | int = 0.0
    ) -> None:
        super().__init__(input_embedding_size, dropout=dropout)
        self.linear = nn.Linear(input_embedding_size, positive_size("output_size", output_size), bias=bias)

    @property
    def output_size(self) -> int:
        """Number of dimensions that the linear map gives."""
        return self.linear.out_features

    def transform(self, input_vectors: Float[Tensor, "batch input"]) -> Float[Tensor, "batch output"]:
        """Apply the linear map; shape ``(batch, output_size)`` out."""
        projected: Tensor = self.linear(input_vectors)
        return projected

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {**super().get_config_dict(), "output_size": self.output_size, "bias": self.linear.bias is not None}
