"""The model that is trained, saved and served: encoders, their outputs joined, a head."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from simtrain.data.transfer import move_to
from simtrain.encoders.positive_size import positive_size
from simtrain.errors import ConfigError, DataError
from simtrain.models.encoding import cosine_matrix, embed_items
from simtrain.models.eval_mode import eval_mode
from simtrain.models.item_inputs import listed_items
from simtrain.models.joined_encoders import is_frozen, join, joint_size, named_encoders
from simtrain.models.placement import device_of
from simtrain.models.servable import load_parts, save_parts


class SimilarityModel(nn.Module):
    """Encoders side by side, their embeddings joined in the sorted order of names, and a head on top.

    Frozen encoders take no gradients, stay in eval mode and run without autograd. Encoders and heads of
    quaterion-models are taken as they are.

    Args:
        encoders: One encoder (it gets the name ``"default"``) or encoders by name.
        head: Takes vectors of as many dimensions as all encoders together give.

    Raises:
        ConfigError: No or wrong encoders, or a head whose input size does not fit.

    Example:
        >>> from simtrain.encoders import PrecomputedEncoder
        >>> from simtrain.heads import EmptyHead
        >>> model = SimilarityModel(PrecomputedEncoder(2), EmptyHead(2))
        >>> model.encode([[3.0, 4.0], [1.0, 0.0]], normalize=True)
        array([[0.6, 0.8],
               [1. , 0. ]], dtype=float32)
    """

    def __init__(self, encoders: nn.Module | Mapping[str, nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.encoders = named_encoders(encoders)
        self.head = _fitting_head(head, joint_size(dict(self._named())))

    @property
    def embedding_size(self) -> int:
        """Number of dimensions of one embedding, after the head."""
        return int(self.head.output_size)  # type: ignore[arg-type]

    def train(self, mode: bool = True) -> SimilarityModel:
        """Switch to train or eval mode; frozen encoders stay in eval mode."""
        super().train(mode)
        for _, encoder in self._named():
            if is_frozen(encoder):
                encoder.eval()
        return self

    def collate(self, objects: Sequence[Any]) -> dict[str, Any]:
        """Raw items → for each encoder's name, the batch that it takes."""
        return {name: encoder.get_collate_fn()(list(objects)) for name, encoder in self._named()}

    def forward(self, features: Mapping[str, Any]) -> Float[Tensor, "batch dim"]:
        """Embed a collated batch.

        Args:
            features: For each encoder's name its batch, on the model's device, as :meth:`collate` gives it.

        Returns:
            Embeddings, shape ``(batch, embedding_size)``.

        Raises:
            DataError: An encoder's batch is missing, or the encoders gave different numbers of embeddings.
        """
        missing = [name for name in self.encoders if name not in features]
        if missing:
            raise DataError(f"the batch lacks the features of {missing}; it has {sorted(features)}")
        joined = join({name: self._embedded(name, features[name]) for name in self.encoders})
        embeddings: Tensor = self.head(joined, meta=None)
        return embeddings

    def encode(
        self,
        inputs: Any,
        batch_size: int = 32,
        to_numpy: bool = True,
        show_progress: bool | None = None,
        normalize: bool = False,
    ) -> Any:
        """Embed raw items.

        The mode (train or eval) of every part is afterwards what it was before.

        Args:
            inputs: One item (a text, an image, ...), or many: a list, tuple, array, generator or other
                sequence. Numeric arrays and tensors of two or more dimensions hold an item in each row.
            batch_size: Items a batch. Items of similar length share a batch.
            to_numpy: Whether to return a numpy array; else a tensor on the model's device.
            show_progress: Whether to show a progress bar. Default: if it takes over a second in a terminal.
            normalize: Whether to bring the embeddings to length 1.

        Returns:
            Shape ``(embedding_size,)`` for one item, ``(n, embedding_size)`` for n of them, also for n = 0.

        Raises:
            DataError: An item cannot be encoded or its embedding is not finite; the message says which.
        """
        items, single = listed_items(inputs)
        with eval_mode(self):
            embeddings = embed_items(
                items,
                self._embed_raw(),
                lengths=[self._length(item) for item in items],
                dim=self.embedding_size,
                batch_size=positive_size("batch_size", batch_size),
                device=torch.device("cpu") if to_numpy else device_of(self),
                show_progress=show_progress,
            )
        if normalize:
            embeddings = functional.normalize(embeddings, dim=1)
        return _shaped(embeddings, single, to_numpy)

    def encode_query(self, inputs: Any, **options: Any) -> Any:
        """Embed what is searched with. The same as :meth:`encode` for a model with equal sides."""
        return self.encode(inputs, **options)

    def encode_document(self, inputs: Any, **options: Any) -> Any:
        """Embed what is searched in. The same as :meth:`encode` for a model with equal sides."""
        return self.encode(inputs, **options)

    def similarity(self, a: Any, b: Any = None) -> Float[Tensor, "n m"]:
        """Cosine similarity of each of ``a`` with each of ``b``.

        Args:
            a: Embeddings (a float array or tensor with ``embedding_size`` columns), or raw items to encode.
            b: Likewise. Default: ``a`` itself.

        Returns:
            Shape ``(n, m)``, on the CPU unless both are tensors of one device.
        """
        left = self._embeddings_of(a)
        right = left if b is None else self._embeddings_of(b)
        if left.device != right.device:
            left, right = left.cpu(), right.cpu()
        return cosine_matrix(left, right)

    def save(self, path: str | Path) -> None:
        """Write the model into a new or an existing folder, all or nothing.

        Whenever it is interrupted, the folder holds the old model or the new one. Other files in it are not
        touched. Weights are safetensors; there is no pickle.

        Raises:
            ServableError: ``path`` is a file, or holds a ``config.json`` of something else.
        """
        save_parts(Path(path), dict(self.encoders.items()), self.head)

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | torch.device = "cpu",
        allow: Collection[type] = (),
        encoders: Mapping[str, nn.Module] | None = None,
    ) -> SimilarityModel:
        """Read a model that :meth:`save` wrote.

        Args:
            path: The folder.
            device: Where to put the model.
            allow: Classes of encoders and heads that may be loaded beside the registered ones.
            encoders: Encoders built by the caller (those around a module of his own), by name; the saved
                weights are read into them.

        Returns:
            The model, in eval mode.

        Raises:
            ServableError: A file is missing or damaged, or names a class that is neither registered nor allowed.
        """
        loaded, head = load_parts(Path(path), allow, encoders or {})
        return cls(loaded, head).to(device).eval()

    def _named(self) -> list[tuple[str, Any]]:
        return list(self.encoders.items())

    def _embedded(self, name: str, batch: Any) -> Tensor:
        encoder = self.encoders[name]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not is_frozen(encoder)):
            embeddings: Tensor = encoder(batch)
        return embeddings

    def _embed_raw(self) -> Any:
        collates = {name: encoder.get_collate_fn() for name, encoder in self._named()}
        device = device_of(self)

        def embed(items: Sequence[Any]) -> Tensor:
            features = {name: collate(items) for name, collate in collates.items()}
            return self(move_to(features, device))  # type: ignore[no-any-return]

        return embed

    def _length(self, item: Any) -> int:
        # Encoders of quaterion-models have no item_length.
        return sum(encoder.item_length(item) for _, encoder in self._named() if hasattr(encoder, "item_length"))

    def _embeddings_of(self, given: Any) -> Tensor:
        is_array = isinstance(given, (Tensor, np.ndarray)) and given.ndim == 2 and given.shape[1] == self.embedding_size
        tensor = torch.as_tensor(given) if is_array else None
        if tensor is None or not tensor.is_floating_point():
            encoded: Tensor = self.encode(given, to_numpy=False)
            return encoded.reshape(-1, self.embedding_size)
        return tensor


def _fitting_head(head: nn.Module, size: int) -> nn.Module:
    if not isinstance(head, nn.Module) or not hasattr(type(head), "output_size"):
        raise ConfigError(f"head must be a simtrain.heads.EncoderHead, got {type(head).__name__}")
    head_size = getattr(head, "input_embedding_size", None)
    if head_size is not None and head_size != size:
        raise ConfigError(f"the encoders give {size} dimensions together, but the head takes {head_size}")
    return head


def _shaped(embeddings: Tensor, single: bool, to_numpy: bool) -> Any:
    shaped = embeddings[0] if single else embeddings
    if not to_numpy:
        return shaped
    return (shaped.float() if shaped.dtype == torch.bfloat16 else shaped).numpy()
