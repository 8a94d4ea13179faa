"""The head that starts as (nearly) the identity and learns what to add."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from simtrain.encoders.positive_size import positive_size
from simtrain.heads.encoder_head import EncoderHead, dropout_layer, probability
from simtrain.registry import heads

# sigmoid(-4) = 0.018: training starts from the encoders' own embeddings, with an open path for gradients.
CLOSED_GATE = -4.0


@heads.register_module()
class SkipConnectionHead(EncoderHead):
    """Adds a gated linear map of the vectors to the vectors: ``x + sigmoid(g) * (W drop(x) + b)``, n times.

    The gates start nearly closed, so that the untrained head all but keeps the encoders' embeddings. Parameter names
    (``fc_i``, ``gates_i``) are those of quaterion-models; its weights load here and the other way round.

    Args:
        input_embedding_size: Number of dimensions of the joined embeddings of all encoders.
        dropout: Chance of each input dimension to be zeroed in training, from 0 to below 1.
        skip_dropout: The same for the added branch only; the vectors themselves pass unchanged.
        n_layers: Number of such steps, 1 or more.
        identity_init: Start with the linear maps at zero and the gates half open: the untrained head gives exactly
            the encoders' embeddings, and learns an order of magnitude faster than through closed gates.

    Raises:
        ConfigError: An argument is out of its range.

    Reference:
        He et al., Deep Residual Learning for Image Recognition, 2015; Srivastava et al., Highway Networks, 2015.

    Example:
        >>> head = SkipConnectionHead(4)
        >>> vectors = torch.eye(4)
        >>> bool((head(vectors) - vectors).abs().max() < 0.05)
        True
    """

    def __init__(
        self,
        input_embedding_size: int,
        dropout: float | int = 0.0,
        skip_dropout: float | int = 0.0,
        n_layers: int = 1,
        identity_init: bool = False,
    ) -> None:
        super().__init__(input_embedding_size, dropout=dropout)
        self._skip_dropout_prob = probability("skip_dropout", skip_dropout)
        self._n_layers = positive_size("n_layers", n_layers)
        self.skip_dropout = dropout_layer(self._skip_dropout_prob)
        gate = 0.0 if identity_init else CLOSED_GATE
        for i in range(self._n_layers):
            linear = nn.Linear(input_embedding_size, input_embedding_size)
            if identity_init:
                nn.init.zeros_(linear.weight)
                nn.init.zeros_(linear.bias)
            self.register_parameter(f"gates_{i}", nn.Parameter(torch.full((input_embedding_size,), gate)))
            self.add_module(f"fc_{i}", linear)

    @property
    def output_size(self) -> int:
        """The number of input dimensions."""
        return self.input_embedding_size

    def transform(self, input_vectors: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Apply the steps one after another; shape ``(batch, input_embedding_size)`` in and out."""
        for i in range(self._n_layers):
            added = self.get_submodule(f"fc_{i}")(self.skip_dropout(input_vectors))
            input_vectors = added * torch.sigmoid(self.get_parameter(f"gates_{i}")) + input_vectors
        return input_vectors

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values, without ``identity_init``: loaded weights replace any start."""
        return {**super().get_config_dict(), "skip_dropout": self._skip_dropout_prob, "n_layers": self._n_layers}
