"""The loss of embeddings that may be cut short."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from jaxtyping import Bool, Float, Int64, Integer
from torch import Tensor

from simtrain import registry
from simtrain.errors import ConfigError, DataError
from simtrain.losses.memory_rows import MemoryRows
from simtrain.losses.nested_losses import GivenLoss, check_part_memory, describe_loss, nested_loss, total_active
from simtrain.losses.settings import check_positive
from simtrain.losses.similarity_loss import SimilarityLoss


@registry.losses.register_module()
class MatryoshkaLoss(SimilarityLoss):
    """Any loss, over the first dimensions of the embeddings, for several numbers of them: their weighted sum.

    Embeddings trained with it can be cut to any of the sizes, and lose little. It takes the batches that the inner
    loss takes, and works with a cross-batch memory if that does. The log has each size's loss as ``loss_<size>``, what
    the inner loss notes as ``<figure>_<size>``, and the sum of its ``n_active``.

    Args:
        loss: A loss, or its config.
        sizes: Numbers of dimensions, each at most that of the embeddings. The full size is not added by itself.
        weights: Factor of each size's loss, above zero. Default: 1 for each, as in the paper.

    Raises:
        ConfigError: A setting is not one of the above, or the loss has weights of its own for one embedding size.

    Reference:
        Kusupati et al., "Matryoshka Representation Learning", NeurIPS 2022, https://arxiv.org/abs/2205.13147
        (equation 1)

    Example:
        >>> import torch
        >>> from simtrain.losses import TripletLoss
        >>> loss = MatryoshkaLoss(TripletLoss(margin=0.5), sizes=[3, 2])
        >>> loss(torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 3.0], [0.0, 1.0, 0.0]]), torch.tensor([0, 0, 1]))
        tensor(0.1838)
        >>> sorted(name for name in loss.figures() if name.startswith("loss"))
        ['loss_2', 'loss_3']
    """

    def __init__(self, loss: GivenLoss, sizes: Sequence[int], weights: Sequence[float | int] | None = None) -> None:
        super().__init__()
        self.loss = nested_loss(loss, "MatryoshkaLoss: loss")
        self.sizes = _checked_sizes(sizes)
        given = [1.0] * len(self.sizes) if weights is None else list(weights)
        if len(given) != len(self.sizes):
            raise ConfigError(f"MatryoshkaLoss: weights must be one for each of {len(self.sizes)} sizes, got {given}")
        self.weights = [check_positive("MatryoshkaLoss", "each of weights", weight) for weight in given]
        fixed = [name for name, parameter in self.loss.named_parameters() if parameter.ndim > 1]
        if fixed:
            raise ConfigError(
                f"MatryoshkaLoss cuts embeddings to {self.sizes} dimensions, but {type(self.loss).__name__} has "
                f"weights ({', '.join(fixed)}) for one embedding size; use a loss without class weights"
            )

    @property
    def target_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Which targets of a batch the inner loss is called with."""
        return self.loss.target_names

    @property
    def supports_memory(self) -> bool:
        """Whether the inner loss works with a cross-batch memory."""
        return self.loss.supports_memory

    @property
    def supports_pair_memory(self) -> bool:
        """Whether the inner loss works with a memory of pairs."""
        return self.loss.supports_pair_memory

    def check_memory(self) -> None:
        """Refuse what the inner loss refuses; see :meth:`SimilarityLoss.check_memory`."""
        check_part_memory(self.loss, "MatryoshkaLoss: loss")

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {"loss": describe_loss(self.loss), "sizes": self.sizes, "weights": self.weights}

    def extra_repr(self) -> str:
        """Sizes and weights; the inner loss is shown as a part."""
        return f"sizes={self.sizes}, weights={self.weights}"

    def forward(self, embeddings: Float[Tensor, "rows dim"], *targets: Tensor) -> Float[Tensor, ""]:
        """Loss of a batch.

        Args:
            embeddings: Shape ``(rows, dim)``.
            *targets: What the inner loss takes.

        Raises:
            DataError: ``dim`` is less than one of the sizes, or what the inner loss raises.
        """
        self._check_dimensions(embeddings)
        return self._sum(self.loss(embeddings[:, :size], *targets) for size in self.sizes)

    def memory_loss(
        self,
        embeddings: Float[Tensor, "batch dim"],
        groups: Integer[Tensor, " batch"],
        memory_embeddings: Float[Tensor, "memory dim"],
        memory_groups: Integer[Tensor, " memory"],
        own: Bool[Tensor, "batch memory"] | None = None,
    ) -> Float[Tensor, ""]:
        """Loss of a batch against a memory; see :meth:`SimilarityLoss.memory_loss`."""
        self._check_dimensions(embeddings)
        return self._sum(
            self.loss.memory_loss(embeddings[:, :size], groups, memory_embeddings[:, :size], memory_groups, own)
            for size in self.sizes
        )

    def memory_rows_loss(
        self,
        embeddings: Float[Tensor, "batch dim"],
        groups: Integer[Tensor, " batch"],
        items: Integer[Tensor, " batch"],
        memory: MemoryRows,
    ) -> Float[Tensor, ""]:
        """Loss of a batch against a memory; see :meth:`SimilarityLoss.memory_rows_loss`."""
        self._check_dimensions(embeddings)
        return self._sum(
            self.loss.memory_rows_loss(embeddings[:, :size], groups, items, _cut(memory, size)) for size in self.sizes
        )

    def remembered_rows(self, pairs: Int64[Tensor, "n_pairs 2"]) -> Int64[Tensor, " n"]:
        """Those of the inner loss."""
        return self.loss.remembered_rows(pairs)

    def pair_memory_loss(
        self,
        embeddings: Float[Tensor, "rows dim"],
        pairs: Int64[Tensor, "n_pairs 2"],
        labels: Float[Tensor, " n_pairs"],
        subgroups: Integer[Tensor, " rows"],
        items: Integer[Tensor, " rows"],
        memory: MemoryRows,
    ) -> Float[Tensor, ""]:
        """Loss of a batch of pairs against a memory; see :meth:`SimilarityLoss.pair_memory_loss`."""
        self._check_dimensions(embeddings)
        given = (pairs, labels, subgroups, items)
        return self._sum(
            self.loss.pair_memory_loss(embeddings[:, :size], *given, _cut(memory, size)) for size in self.sizes
        )

    def _sum(self, losses: Iterator[Tensor]) -> Tensor:
        terms: list[Tensor] = []
        figures: dict[str, Tensor | float] = {}
        for size, weight, loss in zip(self.sizes, self.weights, losses, strict=True):
            terms.append(loss * weight)
            # Read now: the next size's call replaces them.
            figures |= {f"loss_{size}": loss, **{f"{name}_{size}": f for name, f in self.loss.figures().items()}}
        self.note(**figures, **total_active(figures.get(f"n_active_{size}") for size in self.sizes))
        return sum(terms[1:], start=terms[0])

    def _check_dimensions(self, embeddings: Tensor) -> None:
        if embeddings.ndim == 2 and embeddings.shape[1] < max(self.sizes):
            raise DataError(
                f"MatryoshkaLoss has sizes up to {max(self.sizes)}, but the embeddings have {embeddings.shape[1]} "
                f"dimensions; leave out the larger sizes"
            )


def _cut(memory: MemoryRows, size: int) -> MemoryRows:
    # Views of the rows' first dimensions; their lengths are others.
    if size == memory.embeddings.shape[1]:
        return memory
    return replace(memory, embeddings=memory.embeddings[:, :size], norms=None)


def _checked_sizes(sizes: Any) -> list[int]:
    listed = list(sizes) if isinstance(sizes, Sequence) and not isinstance(sizes, str) else []
    whole = all(isinstance(size, int) and not isinstance(size, bool) and size >= 1 for size in listed)
    if not listed or not whole or len(set(listed)) < len(listed):
        raise ConfigError(f"MatryoshkaLoss: sizes must be different whole numbers, 1 or more each, got {sizes!r}")
    return listed
