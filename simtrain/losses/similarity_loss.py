"""The base class of all losses."""

from __future__ import annotations

from typing import Any

from jaxtyping import Bool, Float, Int64, Integer
from torch import Tensor, nn

from simtrain.errors import ConfigError
from simtrain.losses.memory_rows import MemoryRows


class SimilarityLoss(nn.Module):
    """Base of all losses. Derive from :class:`GroupLoss` or :class:`PairwiseLoss`, which fix how a loss is called.

    Attributes:
        target_names: Which targets of a batch the loss is called with after the embeddings, in that order.

    Example:
        >>> SimilarityLoss().get_config_dict()
        {}
    """

    target_names: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self._figures: dict[str, Tensor | float] = {}

    @property
    def supports_memory(self) -> bool:
        """Whether :meth:`memory_loss` is there, that is, whether the loss works with a cross-batch memory."""
        return type(self).memory_loss is not SimilarityLoss.memory_loss

    @property
    def supports_pair_memory(self) -> bool:
        """Whether :meth:`pair_memory_loss` is there, that is, whether the loss works with a memory of pairs."""
        return type(self).pair_memory_loss is not SimilarityLoss.pair_memory_loss

    def check_memory(self) -> None:
        """Refuse what would fail with a cross-batch memory; asked once, before training.

        A subclass adds what its settings exclude.

        Raises:
            ConfigError: The loss, with these settings, has no memory form.

        Example:
            >>> from simtrain.losses import SupConLoss
            >>> SupConLoss().check_memory()
        """
        if not self.supports_memory and not self.supports_pair_memory:
            raise ConfigError(
                f"a cross-batch memory works with losses that have a memory form, {type(self).__name__} has none; "
                f"leave out xbm or choose another loss, TripletLoss or MultipleNegativesRankingLoss for example"
            )

    def note(self, **figures: Tensor | float | int) -> None:
        """Leave scalars of the present call for the log, in place of those of the call before.

        Every loss notes ``n_active``: how many anchors, pairs or triplets had a loss other than zero, so that a batch
        with nothing to learn from is seen. Tensors stay where they are: nothing waits for a GPU.

        Args:
            **figures: Name → scalar.
        """
        self._figures = {name: _figure(value) for name, value in figures.items()}

    def figures(self) -> dict[str, Tensor | float]:
        """What the last call left for the log, by name: ``n_active``, the parts of a sum, a moving temperature.

        Example:
            >>> import torch
            >>> from simtrain.losses import NTXentLoss
            >>> loss = NTXentLoss()
            >>> value = loss(torch.eye(4), torch.tensor([0, 0, 1, 2]))
            >>> loss.figures()["n_active"]  # the pairs (0, 1) and (1, 0)
            tensor(2.)
        """
        return dict(self._figures)

    def memory_loss(
        self,
        embeddings: Float[Tensor, "batch dim"],
        groups: Integer[Tensor, " batch"],
        memory_embeddings: Float[Tensor, "memory dim"],
        memory_groups: Integer[Tensor, " memory"],
        own: Bool[Tensor, "batch memory"] | None = None,
    ) -> Float[Tensor, ""]:
        """Loss of a batch against remembered embeddings: batch rows are anchors, memory rows the candidates.

        Args:
            embeddings: Shape ``(batch, dim)``, floating point.
            groups: Group of each embedding, shape ``(batch,)``.
            memory_embeddings: Shape ``(memory, dim)``. They get no gradient.
            memory_groups: Group of each memory row, shape ``(memory,)``.
            own: Where true, the memory row is the batch row's own item, seen earlier: neither its positive nor
                its negative. Shape ``(batch, memory)``; default: nowhere.

        Returns:
            A scalar, float32 or wider. Zero for an empty memory.

        Raises:
            ConfigError: This loss has no memory form.
            DataError: A shape or a dtype is wrong.

        Reference:
            Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020, https://arxiv.org/abs/1912.06798
        """
        raise ConfigError(
            f"{type(self).__name__} has no memory form, so it cannot be trained with a cross-batch memory (XBM); "
            f"use a loss whose supports_memory is True, such as TripletLoss or SupConLoss, or do without XBM"
        )

    def memory_rows_loss(
        self,
        embeddings: Float[Tensor, "batch dim"],
        groups: Integer[Tensor, " batch"],
        items: Integer[Tensor, " batch"],
        memory: MemoryRows,
    ) -> Float[Tensor, ""]:
        """As :meth:`memory_loss`; an item's own entries are known by its number.

        Args:
            embeddings: Shape ``(batch, dim)``, floating point.
            groups: Group of each embedding, shape ``(batch,)``.
            items: Item of each embedding, shape ``(batch,)``.
            memory: The remembered rows.
        """
        own = items.unsqueeze(1) == memory.items
        return self.memory_loss(embeddings, groups, memory.embeddings, memory.groups, own)

    def remembered_rows(self, pairs: Int64[Tensor, "n_pairs 2"]) -> Int64[Tensor, " n"]:
        """Which rows of a batch of pairs a cross-batch memory is to keep; default: all queries, then all documents."""
        return pairs.T.flatten()

    def pair_memory_loss(
        self,
        embeddings: Float[Tensor, "rows dim"],
        pairs: Int64[Tensor, "n_pairs 2"],
        labels: Float[Tensor, " n_pairs"],
        subgroups: Integer[Tensor, " rows"],
        items: Integer[Tensor, " rows"],
        memory: MemoryRows,
    ) -> Float[Tensor, ""]:
        """Loss of a batch of pairs against remembered rows of other batches, which get no gradient.

        Args:
            embeddings: Shape ``(rows, dim)``, floating point.
            pairs: Shape ``(n_pairs, 2)``.
            labels: Shape ``(n_pairs,)``.
            subgroups: Shape ``(rows,)``.
            items: Number of each row's item: memory rows of the same item are its own.
            memory: The remembered rows; their groups are subgroups.

        Returns:
            A scalar, float32 or wider. Zero for an empty memory.

        Raises:
            ConfigError: This loss has no memory form.
        """
        raise ConfigError(
            f"{type(self).__name__} has no memory form, so it cannot be trained with a cross-batch memory (XBM); "
            f"use a loss that has one, such as MultipleNegativesRankingLoss, or do without XBM"
        )

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values: ``type(loss)(**loss.get_config_dict())`` is an equal loss."""
        return {}

    def extra_repr(self) -> str:
        """Settings, as ``print(loss)`` shows them."""
        return ", ".join(f"{name}={value!r}" for name, value in self.get_config_dict().items())


def _figure(value: Tensor | float | int) -> Tensor | float:
    # Floating point, as a log wants to average it.
    if not isinstance(value, Tensor):
        return float(value)
    return value.detach() if value.is_floating_point() else value.detach().float()
