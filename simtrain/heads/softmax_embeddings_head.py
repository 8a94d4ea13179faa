"""The head whose embeddings are probabilities."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from simtrain.encoders.positive_size import positive_size
from simtrain.heads.encoder_head import EncoderHead
from simtrain.registry import heads


@heads.register_module()
class SoftmaxEmbeddingsHead(EncoderHead):
    """Groups of probabilities side by side: a linear map, then a softmax over each group of dimensions.

    Each group sums to 1, so that how peaked it is says how sure the embedding is. Parameter names
    (``projection_layer``) are those of quaterion-models; its weights load here and the other way round. There the
    input size is the third positional argument: give keywords.

    Args:
        input_embedding_size: Number of dimensions of the joined embeddings of all encoders.
        output_groups: Number of groups.
        output_size_per_group: Number of dimensions of a group.
        dropout: Chance of each input dimension to be zeroed in training, from 0 to below 1.

    Raises:
        ConfigError: An argument is out of its range.

    Example:
        >>> import torch
        >>> head = SoftmaxEmbeddingsHead(8, output_groups=2, output_size_per_group=5)
        >>> vectors = head(torch.randn(1, 8)).detach()
        >>> vectors.shape, round(float(vectors[0, :5].sum()), 4)
        (torch.Size([1, 10]), 1.0)
    """

    def __init__(
        self,
        input_embedding_size: int,
        output_groups: int,
        output_size_per_group: int,
        dropout: float | int = 0.0,
    ) -> None:
        super().__init__(input_embedding_size, dropout=dropout)
        self.output_groups = positive_size("output_groups", output_groups)
        self.output_size_per_group = positive_size("output_size_per_group", output_size_per_group)
        self.projection_layer = nn.Linear(input_embedding_size, self.output_size)

    @property
    def output_size(self) -> int:
        """Number of dimensions of all groups together."""
        return self.output_groups * self.output_size_per_group

    def transform(self, input_vectors: Float[Tensor, "batch input"]) -> Float[Tensor, "batch output"]:
        """Project, and take the softmax of each group; shape ``(batch, output_size)`` out."""
        groups = self.projection_layer(input_vectors).unflatten(-1, (self.output_groups, self.output_size_per_group))
        probabilities: Tensor = groups.softmax(dim=-1).flatten(start_dim=-2)
        return probabilities

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {
            **super().get_config_dict(),
            "output_groups": self.output_groups,
            "output_size_per_group": self.output_size_per_group,
        }
