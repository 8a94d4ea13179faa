"""The head made of linear layers with activations between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from simtrain.encoders.positive_size import positive_size
from simtrain.errors import ConfigError, nearest
from simtrain.heads.encoder_head import EncoderHead
from simtrain.registry import heads

# A name from a config must not reach just any function of torch.nn.functional.
ACTIVATIONS = (
    "celu",
    "elu",
    "gelu",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "logsigmoid",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "softsign",
    "tanh",
)


class Activation(nn.Module):
    """A function of ``torch.nn.functional`` as a layer.

    Args:
        name: One of :data:`ACTIVATIONS`.

    Raises:
        ConfigError: ``name`` is none of them.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        if name not in ACTIVATIONS:
            raise ConfigError(f"unknown activation_fn {name!r}; {nearest(str(name), ACTIVATIONS)}")
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function."""
        result: Tensor = getattr(functional, self.name)(x)
        return result

    def extra_repr(self) -> str:
        """The function's name, for printing."""
        return self.name


@heads.register_module()
class StackedProjectionHead(EncoderHead):
    """Linear layers of the given sizes, an activation between each two, none after the last.

    Parameter names (``_stack.i``) are those of quaterion-models; its weights load here and the other way round.

    Args:
        input_embedding_size: Number of dimensions of the joined embeddings of all encoders.
        output_sizes: Number of dimensions after each layer, at least one.
        activation_fn: Name of the activation in ``torch.nn.functional``.
        dropout: Chance of each input dimension to be zeroed in training, from 0 to below 1.

    Raises:
        ConfigError: An argument is out of its range or unknown.

    Example:
        >>> import torch
        >>> StackedProjectionHead(8, output_sizes=[16, 4])(torch.zeros(3, 8)).shape
        torch.Size([3, 4])
    """

    def __init__(
        self,
        input_embedding_size: int,
        output_sizes: Sequence[int],
        activation_fn: str = "relu",
        dropout: float | int = 0.0,
    ) -> None:
        super().__init__(input_embedding_size, dropout=dropout)
        if not isinstance(output_sizes, Sequence) or not output_sizes:
            raise ConfigError(f"output_sizes must be a list of one or more sizes, got {output_sizes!r}")
        self._output_sizes = [positive_size("every one of output_sizes", size) for size in output_sizes]
        self._activation_fn = Activation(activation_fn).name
        layers: list[nn.Module] = []
        for size_in, size_out in zip([input_embedding_size, *self._output_sizes], self._output_sizes, strict=False):
            layers += [nn.Linear(size_in, size_out), Activation(activation_fn)]
        self._stack = nn.Sequential(*layers[:-1])

    @property
    def output_size(self) -> int:
        """The last of the output sizes."""
        return self._output_sizes[-1]

    def transform(self, input_vectors: Float[Tensor, "batch input"]) -> Float[Tensor, "batch output"]:
        """Apply the layers; shape ``(batch, output_size)`` out."""
        projected: Tensor = self._stack(input_vectors)
        return projected

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {
            **super().get_config_dict(),
            "output_sizes": list(self._output_sizes),
            "activation_fn": self._activation_fn,
        }
