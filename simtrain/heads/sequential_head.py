"""The head made of any layers, one after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from simtrain.encoders.positive_size import positive_size
from simtrain.errors import ConfigError
from simtrain.heads.encoder_head import EncoderHead
from simtrain.heads.nested_heads import refuse_shared_weights
from simtrain.heads.sequential_layers import describe_layer, sequential_layer, width_given, width_taken
from simtrain.registry import heads

Layer = nn.Module | Mapping[str, Any]


@heads.register_module()
class SequentialHead(EncoderHead):
    """Layers one after another, like ``torch.nn.Sequential``; a layer may be a head.

    Any module can be trained. What is saved is a description of the layers, no code: it knows those of
    :data:`~simtrain.heads.sequential_layers.LAYERS` and registered heads. Parameter names (``_sequential.i``) are
    those of quaterion-models; its weights load here and the other way round.

    Args:
        *args: The layers, each a module or its config, such as ``{"type": "Linear", "out_features": 8}``; sizes that
            follow from the layers before may be left out. A number in the first place is ``input_embedding_size``.
        output_size: Number of dimensions that the last layer gives.
        layers: The layers, if they are not given one by one.
        input_embedding_size: Number of dimensions of the joined embeddings of all encoders. Default: what the layers
            say; None where they do not.
        dropout: Chance of each input dimension to be zeroed in training, from 0 to below 1.

    Raises:
        ConfigError: There is no layer, a config is wrong, or the sizes do not fit each other.

    Example:
        >>> import torch
        >>> head = SequentialHead(nn.Linear(10, 20), nn.ReLU(), {"type": "Linear", "out_features": 4}, output_size=4)
        >>> head(torch.zeros(3, 10)).shape
        torch.Size([3, 4])
    """

    def __init__(
        self,
        *args: int | Layer,
        output_size: int,
        layers: Sequence[Layer] | None = None,
        input_embedding_size: int | None = None,
        dropout: float | int = 0.0,
    ) -> None:
        size, given = _sorted_out(args, layers, input_embedding_size)
        built = _in_sequence(given, size, positive_size("output_size", output_size))
        size = _size_taken(built) if size is None else size
        # A module of the user's may not say what it takes: any width is let through then.
        super().__init__(output_size if size is None else size, dropout=dropout)
        self.input_embedding_size = size  # type: ignore[assignment]
        self._sequential = nn.Sequential(*built)
        self._output_size = output_size

    @property
    def output_size(self) -> int:
        """Number of dimensions that the last layer gives."""
        return self._output_size

    def transform(self, input_vectors: Float[Tensor, "batch input"]) -> Float[Tensor, "batch output"]:
        """Apply the layers; shape ``(batch, output_size)`` out."""
        return self.transform_items(input_vectors, None)

    def transform_items(self, input_vectors: Float[Tensor, "batch input"], meta: Any) -> Float[Tensor, "batch output"]:
        """Apply the layers; those that are heads are given ``meta``."""
        for layer in self._sequential:
            input_vectors = layer(input_vectors, meta) if isinstance(layer, EncoderHead) else layer(input_vectors)
        return input_vectors

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values.

        Raises:
            ConfigError: A layer cannot be described, or two layers share weights.
        """
        places = {f"layer {i}": layer for i, layer in enumerate(self._sequential)}
        refuse_shared_weights(places)
        return {
            **super().get_config_dict(),
            "layers": [describe_layer(layer, place) for place, layer in places.items()],
            "output_size": self._output_size,
        }

    def __len__(self) -> int:
        return len(self._sequential)

    def __getitem__(self, index: int) -> nn.Module:
        return self._sequential[index]

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self._sequential)

    def _check_width(self, width: int) -> None:
        if self.input_embedding_size is not None:
            super()._check_width(width)


def _sorted_out(
    args: tuple[int | Layer, ...], layers: Sequence[Layer] | None, size: int | None
) -> tuple[int | None, list[Layer]]:
    if args and not isinstance(args[0], (nn.Module, Mapping)):
        if size is not None:
            raise ConfigError(f"input_embedding_size is given twice, as {args[0]!r} and as {size!r}")
        size, args = args[0], args[1:]
    given: list[Any] = [*args, *(layers or [])]
    if not given or (args and layers):
        raise ConfigError(f"give one or more layers, either one by one or as layers=[...]; got {len(given)} in all")
    return None if size is None else positive_size("input_embedding_size", size), given


def _in_sequence(given: Iterable[Layer], width: int | None, output_size: int) -> list[nn.Module]:
    built: list[nn.Module] = []
    for i, one in enumerate(given):
        layer = sequential_layer(one, width, f"layer {i}")
        width = width_given(layer, width)
        built.append(layer)
    if width not in (None, output_size):
        raise ConfigError(f"output_size is {output_size}, but the layers give {width} dimensions")
    return built


def _size_taken(layers: list[nn.Module]) -> int | None:
    for layer in layers:
        taken = width_taken(layer)
        # What layers after this one take says nothing about the first.
        if taken is not None or width_given(layer, 1) != 1:
            return taken
    return None
