"""The head with a side for queries and one for documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from simtrain.data.sides import SIDE, SIDE_NAMES
from simtrain.heads.empty_head import EmptyHead
from simtrain.heads.encoder_head import EncoderHead, meta_names_of
from simtrain.heads.item_choice import item_codes, transform_chosen
from simtrain.heads.nested_heads import describe_head, nested_heads, refuse_shared_weights
from simtrain.registry import heads

Side = nn.Module | Mapping[str, Any] | None

_ADVICE = "this model has two sides: use encode_query or encode_document; in training, pairs or triplets"


@heads.register_module()
class AsymmetricHead(EncoderHead):
    """One head for what is searched with, another for what is searched in.

    With ``document=None`` the documents keep their encoders' embeddings: an index of them stays valid while the query
    side is tuned. Which side an item is on stands in ``meta["side"]``, see :mod:`simtrain.data.sides`.

    Args:
        input_embedding_size: Number of dimensions of the joined embeddings of all encoders. Default: what the sides
            state.
        query: Head of the queries, or its config. Default: the vectors as they are.
        document: Head of the documents, likewise; it gives as many dimensions as ``query``.
        dropout: Chance of each input dimension to be zeroed in training, from 0 to below 1, on both sides. The heads'
            own dropout comes after it.

    Raises:
        ConfigError: A config is wrong, or the sides' sizes do not fit each other.

    Example:
        >>> import torch
        >>> from simtrain.data.sides import DOCUMENT, QUERY
        >>> head = AsymmetricHead(2, query={"type": "GatedHead"})
        >>> head(torch.ones(2, 2), meta={"side": torch.tensor([QUERY, DOCUMENT])}).detach()
        tensor([[0.9640, 0.9640],
                [1.0000, 1.0000]])
    """

    def __init__(
        self,
        input_embedding_size: int | None = None,
        query: Side = None,
        document: Side = None,
        dropout: float | int = 0.0,
    ) -> None:
        given = {"the query side": query, "the document side": document}
        size, built = nested_heads(
            {place: {"type": EmptyHead.__name__} if one is None else one for place, one in given.items()},
            input_embedding_size,
        )
        super().__init__(size, dropout=dropout)
        self.query, self.document = built.values()

    @property
    def output_size(self) -> int:
        """Number of dimensions that both sides give."""
        return int(self.query.output_size)  # type: ignore[arg-type]

    @property
    def meta_names(self) -> dict[str, Sequence[str]]:
        """Each item's side, and what the heads of the sides want to know."""
        return {SIDE: SIDE_NAMES, **meta_names_of([self.query, self.document])}

    def transform(self, input_vectors: Float[Tensor, "batch input"]) -> Float[Tensor, "batch output"]:
        """Raise: without knowing the items there are no sides.

        Raises:
            DataError: Always.
        """
        return self.transform_items(input_vectors, None)

    def transform_items(self, input_vectors: Float[Tensor, "batch input"], meta: Any) -> Float[Tensor, "batch output"]:
        """Send each vector through the head of its side; shape ``(batch, output_size)`` out.

        Raises:
            DataError: ``meta`` does not say which side, or names an unknown one.
        """
        codes = item_codes(meta, SIDE, SIDE_NAMES, len(input_vectors), _ADVICE)
        sides = dict(zip(SIDE_NAMES, (self.query, self.document), strict=True))
        return transform_chosen(sides, codes, input_vectors, meta)

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values.

        Raises:
            ConfigError: A side's class is not registered, or the sides share weights.
        """
        refuse_shared_weights({"the query side": self.query, "the document side": self.document})
        sides = {name: describe_head(getattr(self, name), f"the {name} side") for name in SIDE_NAMES}
        return {**super().get_config_dict(), **sides}
