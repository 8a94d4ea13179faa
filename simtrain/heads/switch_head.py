"""The head that sends each item through the head of its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from simtrain.errors import ConfigError
from simtrain.heads.encoder_head import EncoderHead, meta_names_of
from simtrain.heads.item_choice import item_codes, legend, transform_chosen
from simtrain.heads.nested_heads import describe_head, nested_heads, refuse_shared_weights
from simtrain.registry import heads

Options = Mapping[str, nn.Module | Mapping[str, Any]]
ENCODER = "encoder"


@heads.register_module()
class SwitchHead(EncoderHead):
    """Several heads side by side, of which each item takes one: for models of several kinds of items.

    Which one stands in ``meta["encoder"]``, as a ``SwitchEncoder`` says it: whole numbers, one for each item, that
    count the options in the sorted order of their names. The list of quaterion-models, ``{"encoder": name}`` for each
    item, does too. Parameter names are those of quaterion-models; its weights load here and the other way round.

    Args:
        input_embedding_size: Number of dimensions of the joined embeddings of all encoders. Default: what the options
            state. It may change places with ``options``.
        options: For each name a head or its config; all give the same number of dimensions.
        dropout: Chance of each input dimension to be zeroed in training, from 0 to below 1. The heads' own dropout
            comes after it.

    Raises:
        ConfigError: There is no option, a name cannot be used, or the heads' sizes do not fit each other.

    Example:
        >>> import torch
        >>> from simtrain.heads import EmptyHead, GatedHead
        >>> head = SwitchHead(options={"image": EmptyHead(2), "text": GatedHead(2)})
        >>> head(torch.ones(2, 2), meta={"encoder": torch.tensor([1, 0])}).detach()
        tensor([[0.9640, 0.9640],
                [1.0000, 1.0000]])
    """

    def __init__(
        self,
        input_embedding_size: int | Options | None = None,
        options: Options | int | None = None,
        dropout: float | int = 0.0,
    ) -> None:
        if isinstance(input_embedding_size, Mapping) or isinstance(options, int):  # the order of quaterion-models
            input_embedding_size, options = options, input_embedding_size
        if not isinstance(options, Mapping) or not options:
            raise ConfigError(f"options must give a head or its config for one or more names, got {options!r:.80}")
        named = {_place(name): options[name] for name in sorted(options, key=str)}
        size, built = nested_heads(named, input_embedding_size)  # type: ignore[arg-type]
        super().__init__(size, dropout=dropout)
        self._names = sorted(options)
        for name in self._names:
            self.add_module(self._usable(name), built[_place(name)])

    @property
    def options(self) -> dict[str, nn.Module]:
        """The heads by name, in the order of their codes."""
        return {name: self.get_submodule(name) for name in self._names}

    @property
    def output_size(self) -> int:
        """Number of dimensions that every option gives."""
        return int(self.options[self._names[0]].output_size)  # type: ignore[arg-type]

    @property
    def meta_names(self) -> dict[str, Sequence[str]]:
        """Each item's option, and what the options want to know."""
        return {ENCODER: self._names, **meta_names_of(self.options.values())}

    def transform(self, input_vectors: Float[Tensor, "batch input"]) -> Float[Tensor, "batch output"]:
        """Raise: without knowing the items there is no choice.

        Raises:
            DataError: Always.
        """
        return self.transform_items(input_vectors, None)

    def transform_items(self, input_vectors: Float[Tensor, "batch input"], meta: Any) -> Float[Tensor, "batch output"]:
        """Send each vector through the head of its item; shape ``(batch, output_size)`` out.

        Raises:
            DataError: ``meta`` does not say which, or names an unknown option.
        """
        codes = item_codes(meta, ENCODER, self._names, len(input_vectors), self._advice())
        return transform_chosen(self.options, codes, input_vectors, meta)

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values.

        Raises:
            ConfigError: An option's class is not registered, or two options share weights.
        """
        refuse_shared_weights({_place(name): head for name, head in self.options.items()})
        options = {name: describe_head(head, _place(name)) for name, head in self.options.items()}
        return {**super().get_config_dict(), "options": options}

    def _advice(self) -> str:
        return (
            f"SwitchHead has to know each item's kind: give meta={{'{ENCODER}': int64 codes of shape (batch,)}} with "
            f"{legend(self._names)}, or a list of {{'{ENCODER}': NAME}}; in a model, a SwitchEncoder gives it"
        )

    def _usable(self, name: Any) -> str:
        if not isinstance(name, str) or not name or "." in name or hasattr(self, name):
            raise ConfigError(
                f"an option's name must be a text without dots that the head does not use itself, got {name!r}; "
                f"choose another"
            )
        return name


def _place(name: Any) -> str:
    return f"option {name!r}"
