"""The head that weighs each dimension."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from simtrain.heads.encoder_head import EncoderHead
from simtrain.registry import heads

# tanh(2) = 0.96: training starts from the encoders' own embeddings, where the gradient of tanh has not vanished.
OPEN_GATE = 2.0


@heads.register_module()
class GatedHead(EncoderHead):
    """Multiplies each dimension by a learnt weight from -1 to 1: ``x * tanh(g)``.

    With one parameter a dimension it is the smallest head that can be trained, for small training sets. The parameter
    name (``gates``) is that of quaterion-models; its weights load here and the other way round.

    Args:
        input_embedding_size: Number of dimensions of the joined embeddings of all encoders.
        dropout: Chance of each input dimension to be zeroed in training, from 0 to below 1.

    Raises:
        ConfigError: An argument is out of its range.

    Example:
        >>> GatedHead(2)(torch.tensor([[1.0, -10.0]])).detach()
        tensor([[ 0.9640, -9.6403]])
    """

    def __init__(self, input_embedding_size: int, dropout: float | int = 0.0) -> None:
        super().__init__(input_embedding_size, dropout=dropout)
        self.gates = nn.Parameter(torch.full((self.input_embedding_size,), OPEN_GATE))

    @property
    def output_size(self) -> int:
        """The number of input dimensions."""
        return self.input_embedding_size

    def transform(self, input_vectors: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Weigh the dimensions; shape ``(batch, input_embedding_size)`` in and out."""
        return input_vectors * torch.tanh(self.gates)
