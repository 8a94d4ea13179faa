"""The head that changes nothing."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from simtrain.heads.encoder_head import EncoderHead
from simtrain.registry import heads


@heads.register_module()
class EmptyHead(EncoderHead):
    """Gives the encoders' embeddings unchanged, apart from dropout in training.

    Args:
        input_embedding_size: Number of dimensions of the joined embeddings of all encoders.
        dropout: Chance of each input dimension to be zeroed in training, from 0 to below 1.

    Example:
        >>> import torch
        >>> EmptyHead(2)(torch.tensor([[1.0, 2.0]]))
        tensor([[1., 2.]])
    """

    @property
    def output_size(self) -> int:
        """The number of input dimensions."""
        return self.input_embedding_size

    def transform(self, input_vectors: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``input_vectors``."""
        return input_vectors
