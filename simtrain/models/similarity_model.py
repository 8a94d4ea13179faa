"""The model that is trained, saved and served: encoders, their outputs joined, a head."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from simtrain.data.collate import META, EncoderCollate
from simtrain.data.sides import DOCUMENT, QUERY, SIDE
from simtrain.errors import ConfigError, DataError
from simtrain.models.embedding import embed_model_items
from simtrain.models.encoding import cosine_matrix
from simtrain.models.encoding_options import EncodingOptions
from simtrain.models.eval_mode import eval_mode
from simtrain.models.item_inputs import listed_items
from simtrain.models.item_meta import check_known, item_meta
from simtrain.models.joined_encoders import DEFAULT_NAME, is_frozen, join, joint_size, named_encoders
from simtrain.models.model_card import model_card
from simtrain.models.servable import load_model, save_model


class SimilarityModel(nn.Module):
    """Encoders side by side, their embeddings joined in the sorted order of names, and a head on top.

    Frozen encoders take no gradients, stay in eval mode and run without autograd: under ``no_grad`` in training,
    where a head saves their embeddings for the backward pass, and in inference mode in :meth:`encode`. Encoders and
    heads of quaterion-models are taken as they are. :meth:`compile` compiles the encoders and the head in place.

    Args:
        encoders: One encoder (it gets the name ``"default"``) or encoders by name.
        head: Takes vectors of as many dimensions as all encoders together give.

    Raises:
        ConfigError: No or wrong encoders, a head whose input size does not fit, or one that wants to know something
            of the items that no encoder says.

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
        check_known(self.head, dict(self._named()))

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

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile every encoder and the head in place, with the arguments of ``torch.compile``.

        Each by itself, so that caches and other models around the same parts use what is compiled; collating stays as
        it is. What is saved, and the weights' names, do not change; copies are not compiled.
        """
        for part in (*self.encoders.values(), self.head):
            part.compile(*args, **options)

    @property
    def has_sides(self) -> bool:
        """Whether a query and a document of the same content have different embeddings."""
        return SIDE in getattr(self.head, "meta_names", {}) or bool(self.get_collate().side_fns)

    def get_collate(self) -> EncoderCollate:
        """Collate function for loaders: samples → features for :meth:`forward`, and targets."""
        encoders = dict(self._named())
        # Encoders of quaterion-models have no sides.
        sided = {name: encoder.get_side_fn() for name, encoder in encoders.items() if hasattr(encoder, "get_side_fn")}
        return EncoderCollate(
            {name: encoder.get_collate_fn() for name, encoder in encoders.items()},
            {name: side_fn for name, side_fn in sided.items() if side_fn is not None},
            item_meta(self.head, encoders),
        )

    def collate(self, objects: Sequence[Any], sides: Sequence[int] | None = None) -> dict[str, Any]:
        """Raw items → for each encoder's name, the batch that it takes, and what the head is told of the items.

        Args:
            objects: Raw items.
            sides: Code of each one's side (:mod:`simtrain.data.sides`), for a model that has sides.
        """
        return self.get_collate().features(list(objects), sides)

    def forward(self, features: Mapping[str, Any]) -> Float[Tensor, "batch dim"]:
        """Embed a collated batch.

        Args:
            features: For each encoder's name its batch, on the model's device, as :meth:`collate` gives it.

        Returns:
            Embeddings, shape ``(batch, embedding_size)``.

        Raises:
            DataError: An encoder's batch is missing, or the encoders gave different numbers of embeddings.
        """
        encoders = dict(self._named())
        missing = [name for name in encoders if name not in features]
        if missing:
            raise DataError(f"the batch lacks the features of {missing}; it has {sorted(features)}")
        joined = join({name: _embedded(encoder, features[name]) for name, encoder in encoders.items()})
        embeddings: Tensor = self.head(joined, meta=features.get(META))
        return embeddings

    def encode(
        self,
        inputs: Any,
        batch_size: int = 32,
        to_numpy: bool = True,
        show_progress: bool | None = None,
        normalize: bool = False,
        autocast: str | None = None,
        processes: int = 1,
    ) -> Any:
        """Embed raw items.

        The mode (train or eval) of every part is afterwards what it was before.

        Args:
            inputs: One item (a text, an image, ...), or many: a list, tuple, array, generator or other
                sequence. Numeric arrays and tensors of two or more dimensions hold an item in each row, but
                for a single image.
            batch_size: Items a batch. Items of similar length share a batch.
            to_numpy: Whether to return a numpy array; else a tensor on the model's device.
            show_progress: Whether to show a progress bar. Default: if it takes over a second in a terminal.
            normalize: Whether to bring the embeddings to length 1.
            autocast: ``"bfloat16"`` or ``"float16"`` to compute in that number format where torch finds it safe;
                embeddings are float32 all the same.
            processes: On the CPU, how many processes share the items. Each has a copy of the model, and starting them
                takes seconds: for many items on many cores. In a script, call it under ``if __name__ == "__main__":``.

        Returns:
            Shape ``(embedding_size,)`` for one item, ``(n, embedding_size)`` for n of them, also for n = 0.

        Raises:
            DataError: An item cannot be encoded or its embedding is not finite; the message says which. Or the model
                has a head for each side: use :meth:`encode_query` or :meth:`encode_document`.
            ConfigError: An option is wrong, or ``processes`` is asked of a model on a GPU.
        """
        options = EncodingOptions(batch_size, to_numpy, show_progress, normalize, autocast, processes)
        return self._encode(inputs, None, options)

    def encode_query(self, inputs: Any, **options: Any) -> Any:
        """Embed what is searched with: with the query's prompt and head, where the model has sides.

        Takes the options of :meth:`encode`, and is the same as that for a model with equal sides.
        """
        return self._encode(inputs, QUERY, EncodingOptions(**options))

    def encode_document(self, inputs: Any, **options: Any) -> Any:
        """Embed what is searched in: with the document's prompt and head, where the model has sides.

        Takes the options of :meth:`encode`, and is the same as that for a model with equal sides.
        """
        return self._encode(inputs, DOCUMENT, EncodingOptions(**options))

    def _encode(self, inputs: Any, side: int | None, options: EncodingOptions) -> Any:
        items, single = listed_items(inputs, self.encoders.values())
        with eval_mode(self):
            embeddings = embed_model_items(self, items, side, options)
        if options.normalize:
            embeddings = functional.normalize(embeddings, dim=1)
        return _shaped(embeddings, single, options.to_numpy)

    def similarity(self, a: Any, b: Any = None) -> Float[Tensor, "n m"]:
        """Cosine similarity of each of ``a`` with each of ``b``.

        Args:
            a: Embeddings (a float array or tensor with ``embedding_size`` columns, or a single one of that length), or
                raw items to encode, as queries.
            b: Likewise; raw items are encoded as documents. Default: ``a`` itself.

        Returns:
            Shape ``(n, m)``, on the CPU unless both are tensors of one device.
        """
        left = self._embeddings_of(a, QUERY)
        right = left if b is None and not self.has_sides else self._embeddings_of(a if b is None else b, DOCUMENT)
        if left.device != right.device:
            left, right = left.cpu(), right.cpu()
        return cosine_matrix(left, right)

    def save(self, path: str | Path, format: str = "simtrain", card: str | Mapping[str, Any] | None = None) -> None:
        """Write the model into a folder, all or nothing, with a model card (``README.md``) that says what it is.

        Args:
            path: The folder. In the format of simtrain it may hold an older model, which is replaced: whenever that
                is interrupted, the folder holds the old model or the new one. Other files in it are not touched, nor
                is a ``README.md`` of your own. Weights are safetensors; there is no pickle. In the format of
                quaterion-models it is a new or an empty one.
            format: ``"simtrain"``, or ``"quaterion"`` for what ``quaterion_models.SimilarityModel.load`` reads (with
                simtrain installed beside it, where an encoder is simtrain's).
            card: What to say in the card beside what the model itself knows: a description, or ``{"description":
                text, "data": {...}, "metrics": {...}, "config": {...}}``; see
                :func:`~simtrain.models.model_card.checked_card`.

        Raises:
            ServableError: ``path`` is a file, or holds a ``config.json`` of something else; or a part has no
                counterpart in the format of quaterion-models.
            ConfigError: The format or the card is wrong.
        """
        encoders = dict(self._named())
        text = model_card(Path(path).resolve().name, encoders, self.head, self.has_sides, card)
        save_model(Path(path), format, encoders, self.head, text)

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | torch.device = "cpu",
        allow: Collection[type] = (),
        encoders: nn.Module | Mapping[str, Any] | None = None,
    ) -> SimilarityModel:
        """Read a model that :meth:`save` wrote, or ``quaterion_models.SimilarityModel.save``.

        A folder of quaterion-models is read without that package, its heads as those of simtrain; its encoders are
        classes of yours: ``allow`` them.

        Args:
            path: The folder.
            device: Where to put the model.
            allow: Classes of encoders and heads that may be loaded beside the registered ones, also inside others.
            encoders: Encoders built by the caller (those around a module of his own), as the constructor takes them;
                the saved weights are read into them, the others are loaded. For those inside a ``SwitchEncoder`` their
                names there, ``{"default": {"image": VisionEncoder(...)}}``. Those of a folder of quaterion-models are
                used as they are.

        Returns:
            The model, in eval mode.

        Raises:
            ServableError: A file is missing or damaged, or names a class that is neither registered nor allowed; or
                an encoder that the caller has built would embed otherwise than the saved one.
        """
        ready = {DEFAULT_NAME: encoders} if isinstance(encoders, nn.Module) else encoders
        loaded, head = load_model(Path(path), allow, ready or {})
        return cls(loaded, head).to(device).eval()

    def _named(self) -> list[tuple[str, Any]]:
        return list(self.encoders.items())

    def _embeddings_of(self, given: Any, side: int) -> Tensor:
        shape = tuple(given.shape) if isinstance(given, (Tensor, np.ndarray)) else ()
        is_array = len(shape) in (1, 2) and shape[-1] == self.embedding_size
        tensor = torch.as_tensor(given) if is_array else None
        if tensor is None or not tensor.is_floating_point():
            encoded: Tensor = self._encode(given, side, EncodingOptions(to_numpy=False))
            return encoded.reshape(-1, self.embedding_size)
        return tensor.reshape(-1, self.embedding_size)


def _embedded(encoder: Any, batch: Any) -> Tensor:
    # Where there is no graph to be kept out, leaving gradients on is quicker than switching them off.
    keeps_out = is_frozen(encoder) and not getattr(encoder, "only_looks_up", False)
    with torch.no_grad() if keeps_out else nullcontext():
        embeddings: Tensor = encoder(batch)
    return embeddings


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
