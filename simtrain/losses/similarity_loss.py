"""The base class of all losses."""

from __future__ import annotations

from typing import Any

from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from simtrain.errors import ConfigError


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

    def note(self, **figures: Tensor | float | int) -> None:
        """Leave scalars of the present call for the log, in place of those of the call before.

        Every loss notes ``n_active``: how many anchors, pairs or triplets it had something to learn from, so that a
        batch without any is seen. Tensors stay where they are: nothing waits for a GPU.

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
