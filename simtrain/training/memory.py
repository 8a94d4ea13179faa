"""The cross-batch memory at work: which rows it holds, and what it adds to the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from simtrain.data.batches import Targets
from simtrain.losses import SimilarityLoss
from simtrain.models import SimilarityModel
from simtrain.training.gathering import global_batch, lasting_groups
from simtrain.training.momentum import MomentumEncoder
from simtrain.xbm import XbmBuffer, XbmConfig


class BatchMemory(nn.Module):
    """Embeddings of past batches, and the loss of the present batch against them.

    The memory is filled from the first step, so that it is full of recent embeddings when it is first used. An
    item is never compared with an entry of its own: entries are told apart by ``targets["items"]``, the number of
    each item in its data set, which the loaders of map-style data sets give. Where a batch has no such numbers (a data
    set that is a stream, tensors of your own), its items count as new, so that only the entries of this very batch are
    known to be its own: an item that comes again in a later epoch meets its old entry as if that were another item of
    its group.

    Of a batch of pairs, the rows that its loss asks for are remembered.

    Reference:
        Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020.

    Args:
        config: Size, weight and start of the memory.
        loss: A loss that has a memory form.
        embedding_size: Size of the embeddings.
        model: The model in training, of which a memory with momentum keeps an average.
    """

    def __init__(
        self, config: XbmConfig, loss: SimilarityLoss, embedding_size: int, model: SimilarityModel | None = None
    ) -> None:
        super().__init__()
        self._config = config
        # In a tuple, so that the loss is not registered a second time.
        self._loss = (loss,)
        self.buffer = XbmBuffer(config.buffer_size, embedding_size, dtype=config.dtype, device=config.device)
        averaged = model is not None and config.momentum is not None
        self.encoder = MomentumEncoder(model, float(config.momentum)) if averaged else None  # type: ignore[arg-type]
        # A Python integer: reading a tensor here would make the host wait for the device at every step.
        self._steps = 0
        self._numbered = 0
        self._of_pairs = loss.supports_pair_memory and not loss.supports_memory
        self._figures: dict[str, Tensor | float] = {}

    @classmethod
    def build(
        cls,
        config: XbmConfig | None,
        loss: SimilarityLoss,
        embedding_size: int,
        model: SimilarityModel | None = None,
    ) -> BatchMemory | None:
        """The memory that a config asks for, or None.

        Raises:
            ConfigError: The loss has no memory form; see :meth:`SimilarityLoss.check_memory`.
        """
        if config is None:
            return None
        loss.check_memory()
        return cls(config, loss, embedding_size, model)

    @property
    def n_refused(self) -> Tensor:
        """Rows that were not finite and so were not remembered, up to now; a scalar on the memory's device."""
        return self.buffer.n_refused

    def forward(
        self,
        embeddings: Tensor,
        targets: Targets,
        features: Mapping[str, Any] | None = None,
        model: SimilarityModel | None = None,
        local: Targets | None = None,
    ) -> Tensor:
        """Store a batch; give its weighted loss against the memory, 0 before ``start_iteration``.

        Args:
            embeddings: Of the global batch.
            targets: Of the global batch.
            features: This process's collated batch, for a memory with momentum.
            model: What embeds ``features`` in training, for a memory with momentum.
            local: Targets of this process's batch. Default: ``targets``.
        """
        loss = self._loss[0]
        items = targets["items"] if "items" in targets else self._new_items(embeddings)
        stored = self._stored(embeddings, features, model, local or targets)
        # Stored first: writing into the ring after the loss has read it would spoil the loss's backward pass.
        if self._of_pairs:
            self._queue_pairs(loss, stored, targets, items)
        else:
            self.buffer.queue(stored, lasting_groups(targets, items), items)
        self._steps += 1
        self._figures = {"xbm_loss": 0.0, "xbm_n_active": 0.0}
        if self._steps <= self._config.start_iteration:
            return embeddings.new_zeros(())
        loss.note()  # what the loss has left there is the batch's
        value = self._compared(loss, embeddings, targets, items) * self._config.weight
        self._figures = {"xbm_loss": value.detach(), **{f"xbm_{name}": one for name, one in loss.figures().items()}}
        return value

    def figures(self) -> dict[str, Tensor | float]:
        """What the last step left for the log.

        ``xbm_loss`` is the memory's share of the loss, 0 before the start, and ``xbm_refused`` is :attr:`n_refused`;
        what the loss itself leaves, ``n_active`` and the parts of a sum, has ``xbm_`` before its name.
        """
        return {**self._figures, "xbm_refused": self.n_refused.clone()}

    def _compared(self, loss: SimilarityLoss, embeddings: Tensor, targets: Targets, items: Tensor) -> Tensor:
        memory = self.buffer.rows().to(embeddings.device)
        if self._of_pairs:
            pairs = (targets["pairs"], targets["labels"], targets["subgroups"])
            return loss.pair_memory_loss(embeddings, *pairs, items, memory)
        return loss.memory_rows_loss(embeddings, lasting_groups(targets, items), items, memory)

    def _queue_pairs(self, loss: SimilarityLoss, stored: Tensor, targets: Targets, items: Tensor) -> None:
        sides = torch.zeros_like(items).index_fill_(0, targets["pairs"][:, 1], 1)
        rows = loss.remembered_rows(targets["pairs"])
        self.buffer.queue(stored[rows], targets["subgroups"][rows], items[rows], sides[rows])

    def _stored(
        self,
        embeddings: Tensor,
        features: Mapping[str, Any] | None,
        model: SimilarityModel | None,
        local_targets: Targets,
    ) -> Tensor:
        if self.encoder is None or features is None or model is None:
            return embeddings.detach()
        self.encoder.update(model)
        return global_batch(self.encoder(features, model), local_targets)[0].detach()

    def _new_items(self, embeddings: Tensor) -> Tensor:
        self._numbered += len(embeddings)
        # Negative, so that they never meet the numbers that data sets give.
        return -self._numbered + torch.arange(len(embeddings), device=embeddings.device)

    def get_extra_state(self) -> dict[str, int]:
        """Steps taken, for checkpoints."""
        return {"steps": self._steps, "numbered": self._numbered}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Go on counting from a checkpoint."""
        self._steps, self._numbered = state["steps"], state["numbered"]
