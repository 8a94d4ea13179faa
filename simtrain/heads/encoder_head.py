"""The base class of heads, and how heads are saved."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from simtrain.encoders.positive_size import positive_size
from simtrain.encoders.saved_classes import allowing
from simtrain.encoders.settings_file import build_from_settings, read_settings, write_settings
from simtrain.encoders.weights_file import load_weights, save_weights
from simtrain.errors import ConfigError, DataError

SETTINGS_FILE = "config.json"
WEIGHTS_FILE = "weights.safetensors"

H = TypeVar("H", bound=nn.Module)


def probability(name: str, value: Any) -> float:
    """Return ``value`` if it is a number from 0 to below 1.

    Raises:
        ConfigError: It is not; the message uses ``name``.

    Example:
        >>> probability("dropout", 0.1)
        0.1
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value < 1.0:
        raise ConfigError(f"{name} must be a number from 0 to below 1, got {value!r}")
    return float(value)


def dropout_layer(chance: float) -> nn.Module:
    """Dropout, or nothing where ``chance`` is 0."""
    return nn.Dropout(chance) if chance > 0.0 else nn.Identity()


def save_head(head: nn.Module, output_path: str | Path) -> None:
    """Write any module with ``get_config_dict()`` as ``config.json`` and ``weights.safetensors``.

    Args:
        head: A head of simtrain or of quaterion-models.
        output_path: An existing folder.
    """
    config: dict[str, Any] = head.get_config_dict()  # type: ignore[operator]
    write_settings(Path(output_path) / SETTINGS_FILE, config)
    save_weights(head, Path(output_path) / WEIGHTS_FILE)


def load_head(cls: type[H], input_path: str | Path) -> H:
    """Rebuild a head of class ``cls`` from a folder that :func:`save_head` wrote.

    Raises:
        ServableError: A file is missing, damaged, or does not fit ``cls``; the message names the file.
    """
    file = Path(input_path) / SETTINGS_FILE
    head = build_from_settings(cls, read_settings(file), file)
    load_weights(head, Path(input_path) / WEIGHTS_FILE)
    return head


def meta_names_of(heads: Iterable[nn.Module]) -> dict[str, Sequence[str]]:
    """What several heads want to know of each item, together; see :attr:`EncoderHead.meta_names`."""
    return {key: names for head in heads for key, names in getattr(head, "meta_names", {}).items()}


class EncoderHead(nn.Module):
    """The layers after the encoders, often all that is trained.

    A subclass states :attr:`output_size`, implements :meth:`transform`, and adds its own constructor
    arguments to :meth:`get_config_dict`. One that treats items differently implements :meth:`transform_items` too.

    Args:
        input_embedding_size: Number of dimensions of the joined embeddings of all encoders.
        dropout: Chance of each input dimension to be zeroed in training, from 0 to below 1.

    Raises:
        ConfigError: An argument is out of its range.

    Example:
        >>> import torch
        >>> class Doubling(EncoderHead):
        ...     @property
        ...     def output_size(self):
        ...         return self.input_embedding_size
        ...     def transform(self, input_vectors):
        ...         return 2 * input_vectors
        >>> Doubling(2)(torch.ones(1, 2))
        tensor([[2., 2.]])
    """

    def __init__(self, input_embedding_size: int, dropout: float | int = 0.0) -> None:
        super().__init__()
        self.input_embedding_size = positive_size("input_embedding_size", input_embedding_size)
        self._dropout_prob = probability("dropout", dropout)
        self.dropout = dropout_layer(self._dropout_prob)

    @property
    def output_size(self) -> int:
        """Number of dimensions that the head gives."""
        raise NotImplementedError(f"{type(self).__name__} must state `output_size`")

    @property
    def meta_names(self) -> dict[str, Sequence[str]]:
        """What the head wants to know of each item: key → the names that it can have, in the order of their codes.

        A model gathers it and gives it as ``meta``: whole numbers by key. Default: nothing.
        """
        return {}

    def transform(self, input_vectors: Float[Tensor, "batch input"]) -> Float[Tensor, "batch output"]:
        """What the head does to vectors, after dropout.

        Args:
            input_vectors: Shape ``(batch, input_embedding_size)``.

        Returns:
            Shape ``(batch, output_size)``.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `transform`")

    def transform_items(self, input_vectors: Float[Tensor, "batch input"], meta: Any) -> Float[Tensor, "batch output"]:
        """What the head does to vectors, after dropout, where it depends on the item. Default: :meth:`transform`.

        Args:
            input_vectors: Shape ``(batch, input_embedding_size)``.
            meta: As in :meth:`forward`.

        Returns:
            Shape ``(batch, output_size)``.
        """
        return self.transform(input_vectors)

    def forward(self, input_vectors: Float[Tensor, "batch input"], meta: Any = None) -> Float[Tensor, "batch output"]:
        """Dropout, then :meth:`transform_items`.

        Args:
            input_vectors: Joined embeddings, shape ``(batch, input_embedding_size)``.
            meta: What is known of the items: tensors by name with a row for each item, or a list with a dict for each
                item. Only heads that choose by item look at it.

        Returns:
            Shape ``(batch, output_size)``.

        Raises:
            DataError: The vectors have another number of dimensions, or ``meta`` is not what the head needs.
        """
        self._check_width(input_vectors.shape[-1])
        return self.transform_items(self.dropout(input_vectors), meta)

    def _check_width(self, width: int) -> None:
        if width != self.input_embedding_size:
            raise DataError(
                f"{type(self).__name__} takes vectors of {self.input_embedding_size} dimensions, got {width}; build "
                f"the head with the sum of the encoders' embedding sizes"
            )

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {"input_embedding_size": self.input_embedding_size, "dropout": self._dropout_prob}

    def save(self, output_path: str | Path) -> None:
        """Write ``config.json`` and ``weights.safetensors`` into an existing folder."""
        save_head(self, output_path)

    @classmethod
    def load(cls: type[H], input_path: str | Path, allow: Collection[type] = ()) -> H:
        """Rebuild a head from a folder that :meth:`save` wrote.

        Args:
            input_path: The folder.
            allow: Classes of heads inside this one that may be loaded beside the registered ones.

        Raises:
            ServableError: A file is missing, damaged, does not fit this class, or names a class that is neither
                registered nor allowed.
        """
        with allowing(allow):
            return load_head(cls, input_path)
