"""The cross-batch memory at work: which rows it holds, and what it adds to the loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from simtrain.data.batches import Targets
from simtrain.errors import ConfigError
from simtrain.losses import GroupLoss, SimilarityLoss
from simtrain.xbm import XbmBuffer, XbmConfig


class BatchMemory(nn.Module):
    """Embeddings of past batches, and the loss of the present batch against them.

    The memory is filled from the first step, so that it is full of recent embeddings when it is first used. An
    item is never compared with an entry of its own: entries are told apart by ``targets["items"]``, the number of
    each item in its data set. Where a batch does not say, its items count as new, so that only the entries of this
    very batch are known to be its own.

    Reference:
        Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020.

    Args:
        config: Size, weight and start of the memory.
        loss: A group loss that has a memory form.
        embedding_size: Size of the embeddings.
    """

    def __init__(self, config: XbmConfig, loss: GroupLoss, embedding_size: int) -> None:
        super().__init__()
        self._config = config
        # In a tuple, so that the loss is not registered a second time.
        self._loss = (loss,)
        self.buffer = XbmBuffer(config.buffer_size, embedding_size, dtype=config.dtype, device=config.device)
        # A Python integer: reading a tensor here would make the host wait for the device at every step.
        self._steps = 0
        self._numbered = 0

    @classmethod
    def build(cls, config: XbmConfig | None, loss: SimilarityLoss, embedding_size: int) -> BatchMemory | None:
        """The memory that a config asks for, or None.

        Raises:
            ConfigError: The loss has no memory form.
        """
        if config is None:
            return None
        if not isinstance(loss, GroupLoss) or not loss.supports_memory:
            raise ConfigError(
                f"a cross-batch memory works with group losses that have a memory form, "
                f"{type(loss).__name__} has none; leave out xbm or choose another loss, TripletLoss for example"
            )
        return cls(config, loss, embedding_size)

    def forward(self, embeddings: Tensor, targets: Targets) -> Tensor:
        """Store a batch; give its weighted loss against the memory, 0 before ``start_iteration``."""
        groups = targets["groups"]
        items = targets["items"] if "items" in targets else self._new_items(groups)
        # Stored first: writing into the ring after the loss has read it would spoil the loss's backward pass.
        self.buffer.queue(embeddings.detach(), groups, items)
        self._steps += 1
        if self._steps <= self._config.start_iteration:
            return embeddings.new_zeros(())
        memory, memory_groups, memory_items = (part.to(embeddings.device) for part in self.buffer.get())
        own = items.unsqueeze(1) == memory_items
        return self._loss[0].memory_loss(embeddings, groups, memory, memory_groups, own) * self._config.weight

    def _new_items(self, groups: Tensor) -> Tensor:
        self._numbered += len(groups)
        # Negative, so that they never meet the numbers that data sets give.
        return -self._numbered + torch.arange(len(groups), device=groups.device)

    def get_extra_state(self) -> dict[str, int]:
        """Steps taken, for checkpoints."""
        return {"steps": self._steps, "numbered": self._numbered}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Go on counting from a checkpoint."""
        self._steps, self._numbered = state["steps"], state["numbered"]
