"""The base class of encoders: whatever turns raw items into vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import default_collate

from simtrain.encoders.lora import under_adapters
from simtrain.encoders.settings_file import check_same_settings
from simtrain.errors import ServableError

CollateFn = Callable[..., Any]
#: From items and the codes of their sides to items that say their side (a text after its prompt).
SideFn = Callable[[Sequence[Any], Sequence[int]], list[Any]]
#: From items to what is known of each, as ``{"encoder": "text"}``.
MetaExtractor = Callable[[Sequence[Any]], list[dict[str, Any]]]


class Encoder(nn.Module):
    """Turns a batch of raw items into embeddings, in two steps: collate (may run in workers), forward.

    A subclass states :attr:`trainable` and :attr:`embedding_size`, and implements :meth:`forward`,
    :meth:`save` and :meth:`load`. :meth:`get_collate_fn` returns a function that can be pickled. What is
    collated and forwarded for an item must not depend on the other items of its batch, since frozen
    encoders are cached item by item.

    Example:
        >>> import torch
        >>> class Lengths(Encoder):
        ...     trainable = False
        ...     embedding_size = 1
        ...     def get_collate_fn(self):
        ...         return lambda texts: torch.tensor([[float(len(text))] for text in texts])
        ...     def forward(self, batch):
        ...         return batch
        >>> encoder = Lengths()
        >>> encoder(encoder.get_collate_fn()(["ab", "abc"])).tolist()
        [[2.0], [3.0]]
    """

    @property
    def trainable(self) -> bool:
        """Whether training may change this encoder. Frozen encoders stay in eval mode and can be cached.

        In training a frozen encoder runs under ``torch.no_grad()``: a head has to save its embeddings for the backward
        pass, which tensors of inference mode do not allow. ``encode``, and the filling of caches, run under
        ``torch.inference_mode()``.
        """
        raise NotImplementedError(f"{type(self).__name__} must state `trainable`")

    @property
    def embedding_size(self) -> int:
        """Number of dimensions of one embedding."""
        raise NotImplementedError(f"{type(self).__name__} must state `embedding_size`")

    def get_collate_fn(self) -> CollateFn:
        """Function from a sequence of raw items to what :meth:`forward` takes (tensors, dicts of tensors)."""
        return default_collate

    def get_side_fn(self) -> SideFn | None:
        """Function that marks raw items by their side (query or document) before they are collated.

        It is given the items and their codes (:mod:`simtrain.data.sides`) and can be pickled. Default: None, an item
        is encoded alike on both sides.
        """
        return None

    def get_meta_extractor(self) -> MetaExtractor | None:
        """Function from raw items to a dict for each, which heads are given as ``meta``; it can be pickled.

        Default: None, there is nothing to say.
        """
        return None

    def forward(self, batch: Any) -> Float[Tensor, "batch dim"]:
        """Embed a collated batch.

        Args:
            batch: What the collate function made, on this encoder's device.

        Returns:
            Embeddings, shape ``(batch, embedding_size)``, floating point.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `forward`")

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values. They are part of a cached embedding's identity."""
        return {}

    def item_length(self, item: Any) -> int:
        """How costly an item is to encode, in any unit; encoding sorts by it to pad less. Default: all equal."""
        return 0

    def save(self, output_path: str | Path) -> None:
        """Write everything that :meth:`load` needs into an existing folder."""
        raise NotImplementedError(f"{type(self).__name__} must implement `save`")

    def load_weights(self, input_path: str | Path) -> None:
        """Read what :meth:`save` wrote into this encoder, which the caller has built.

        Default: another one is loaded from the folder, and its weights are copied. LoRA adapters that this one has
        begin anew on top of them: they change no embedding.

        Raises:
            ServableError: A file is missing or damaged, or the saved encoder has other settings or other weights.
        """
        saved = type(self).load(input_path)
        theirs, own = saved.get_config_dict(), self.get_config_dict()
        # Both are of today's code: what only one of them has (prompts, say) is a difference, too.
        nothing = dict.fromkeys((*theirs, *own))
        check_same_settings({**nothing, **theirs}, {**nothing, **own}, type(self).__name__, Path(input_path))
        try:
            self.load_state_dict(under_adapters(saved.state_dict(), self.state_dict()))
        except RuntimeError as error:
            raise ServableError(f"{input_path} does not fit the given {type(self).__name__}: {error}") from error

    def is_one_item(self, inputs: Any) -> bool:
        """Whether an array or tensor of two or more dimensions, given to ``encode`` as it is, is one item.

        Default: False, it holds an item in each row.
        """
        return False

    @classmethod
    def load(cls, input_path: str | Path) -> Encoder:
        """Rebuild an encoder from a folder that :meth:`save` wrote."""
        raise NotImplementedError(f"{cls.__name__} must implement `load`")
