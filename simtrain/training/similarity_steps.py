"""The steps of a similarity model: from a batch to the loss of its embeddings, and the figures for the log."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from simtrain.cache import CachedModel
from simtrain.data.batches import Targets
from simtrain.data.collate import Features
from simtrain.errors import DataError
from simtrain.losses import SimilarityLoss
from simtrain.losses.temperature import step_temperatures
from simtrain.training.attached_metric import AttachedMetric
from simtrain.training.base_model import BaseModel, updated
from simtrain.training.culprit import blame, find_culprit, may_be_unchecked
from simtrain.training.data_preprocessor import BaseDataPreprocessor
from simtrain.training.gathering import global_batch, n_processes
from simtrain.training.loss_call import call_loss
from simtrain.training.loss_parts import is_loss
from simtrain.training.memory import BatchMemory
from simtrain.training.repeated_items import RepeatedItems
from simtrain.training.stages import TrainStage
from simtrain.training.step_contract import given_wrapper


class SimilaritySteps(BaseModel):
    """The steps of :class:`~simtrain.TrainableModel`, which builds the parts that they use."""

    _cached: CachedModel
    _loss: SimilarityLoss
    _memory: BatchMemory | None
    _metrics: nn.ModuleList
    _repeats: RepeatedItems
    _loader_number: int

    def forward(self, features: Features) -> Float[Tensor, "batch dim"]:
        """Embed a collated batch."""
        embeddings: Tensor = self._cached.model(features)
        return embeddings

    def train_step(self, data_batch: Any, *args: Any, optim_wrapper: Any = None, **kwargs: Any) -> dict[str, Any]:
        """Loss of a training batch.

        Args:
            data_batch: A batch in any accepted form.
            *args: The number of the batch, where a loop gives it.
            optim_wrapper: Updates the parameters if given (``update_params(loss)``); else the caller does.
            **kwargs: Room for overriding methods.

        Returns:
            ``{"loss": scalar with its graph, ...}``.
        """
        optim_wrapper = given_wrapper(args, optim_wrapper)
        if optim_wrapper is None:
            return self._train_losses(data_batch, args)
        with optim_wrapper.optim_context(self):
            losses = self._train_losses(data_batch, args)
        return updated(optim_wrapper, losses)

    def valid_step(self, data_batch: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Loss, embeddings and targets of a validation batch."""
        return self._step(data_batch, args, TrainStage.VALIDATION)

    def test_step(self, data_batch: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Loss, embeddings and targets of a test batch."""
        return self._step(data_batch, args, TrainStage.TEST)

    def compute_loss(self, embeddings: Float[Tensor, "batch dim"], targets: Targets) -> dict[str, Any]:
        """Loss of embeddings for the targets of their batch, and what the loss leaves for the log.

        Returns:
            ``{"loss": scalar with its graph, ...}``; see :meth:`simtrain.losses.SimilarityLoss.figures` for the rest.

        Raises:
            DataError: The batch is of a kind that the loss does not take.
        """
        loss = call_loss(self._loss, embeddings, targets)
        return {**self._loss.figures(), "loss": loss}

    def process_results(
        self, embeddings: Tensor, targets: Targets, batch_idx: int, stage: TrainStage, **kwargs: Any
    ) -> None:
        """Called with the embeddings ``(batch, dim)`` and targets of each batch, its number in the epoch and its stage.

        Override it for evaluation of your own; take ``**kwargs`` as room for later arguments.
        """

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """As in the base class; where the loss is not finite, the encoder and the item that make it so are named."""
        try:
            return super().training_step(batch, batch_idx)
        except DataError:
            if self.device.type != "cpu":  # there, embeddings were looked at already
                self._check_encoders(batch, *self._collated(batch, training=False))
            raise

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leave batches to the steps, which move them when they are collated; samples are no tensors yet."""
        return batch

    def _rows(self, batch: Any, results: Any) -> int:
        return len(results["embeddings"]) if "embeddings" in results else super()._rows(batch, results)

    def _alone(self) -> bool:
        # A step may also be called alone, before or after a trainer has run.
        return self._trainer is None or self._trainer.state.stage is None

    def _train_losses(self, data_batch: Any, args: tuple[Any, ...]) -> dict[str, Any]:
        results = self._step(data_batch, args, TrainStage.TRAIN)
        step_temperatures(self._loss)
        return {name: value for name, value in results.items() if name not in ("embeddings", "targets")}

    def _step(self, data_batch: Any, args: tuple[Any, ...], stage: TrainStage) -> dict[str, Any]:
        if self._alone():
            # Under a trainer the caches were filled before: an item that they lack comes from a random transform.
            self._cached.fill_batch(data_batch, self.device, stage is TrainStage.TRAIN)
        features, targets = self._collated(data_batch, stage is TrainStage.TRAIN)
        embeddings = self(features)
        # Elsewhere than on a CPU the host would wait for the device; there, the loss alone is looked at.
        if embeddings.device.type == "cpu" and may_be_unchecked(self._cached.model) and not _is_finite(embeddings):
            self._check_encoders(data_batch, features, targets)
        if stage is TrainStage.TRAIN:
            losses = self._training_losses(embeddings, targets, features)
        else:
            losses = self._shown(self.compute_loss(embeddings, targets))
        if self._metrics:
            self._log_metrics(embeddings.detach(), targets, stage)
        number = next((arg for arg in args if isinstance(arg, int)), 0)
        self.process_results(embeddings, targets, batch_idx=number, stage=stage)
        return {**losses, "embeddings": embeddings, "targets": targets}

    def _training_losses(self, embeddings: Tensor, targets: Targets, features: Features) -> dict[str, Any]:
        everything, all_targets = global_batch(embeddings, targets)
        losses = self.compute_loss(everything, all_targets)
        if self._memory is None:
            return losses
        remembered = self._memory(everything, all_targets, features, self._cached.model, targets)
        return {**losses, "loss": losses["loss"] + remembered, **self._memory.figures()}

    def _collated(self, batch: Any, training: bool) -> tuple[Features, Targets]:
        if not (isinstance(batch, tuple) and len(batch) == 2 and type(batch[0]) is dict):
            # Made only where it is needed: making one takes as long as a small step does.
            batch = (self._cached.training_collate if training else self._cached.collate).of(batch)
        features, targets = dict(batch[0]), dict(batch[1])
        preprocessor = self.data_preprocessor
        if type(preprocessor) is not BaseDataPreprocessor or not _are_there(features, targets, preprocessor.device):
            features, targets = preprocessor((features, targets), training)
        return self._cached.drawn(features, training, None if self._alone() else self.current_epoch), targets

    def _shown(self, losses: dict[str, Any]) -> dict[str, Any]:
        # What a loss counts of its batches tells how training goes; of validation there are the loss and its parts.
        counted = self._loss.figures().keys()
        return {name: value for name, value in losses.items() if is_loss(name) or name not in counted}

    def _embed_batch(self, batch: Any) -> tuple[Tensor, Targets]:
        features, targets = self._collated(batch, training=False)
        return self(features), targets

    def _check_encoders(self, batch: Any, features: Features, targets: Targets) -> None:
        culprit = find_culprit(self._cached.model, features)
        if culprit is not None:
            raise blame(culprit, batch, targets)

    def _log_metrics(self, embeddings: Tensor, targets: Targets, stage: TrainStage) -> None:
        if self._alone():
            return
        number = 0 if stage is TrainStage.TRAIN else self._loader_number
        if n_processes() > 1:
            embeddings, targets = global_batch(embeddings, targets)
            if stage is not TrainStage.TRAIN:
                embeddings, targets = self._repeats.left_out(embeddings, targets, number)
        shown = {name: target for name, target in targets.items() if name != "items"}
        for attached in self._metrics:
            assert isinstance(attached, AttachedMetric)
            metric = attached.at(stage, number)
            metric(embeddings, **shown)
            self.log(attached.log_name(stage), metric, batch_size=len(embeddings), **attached.log_options)


def _are_there(features: Features, targets: Targets, device: torch.device) -> bool:
    # All tensors, and nothing in them that would have to be moved.
    values = (*features.values(), *targets.values())
    return all(type(value) is Tensor and value.device == device for value in values)


def _is_finite(embeddings: Tensor) -> bool:
    # One sum: a large one that overflows is looked at more closely, and found to be none.
    return math.isfinite(float(embeddings.detach().sum()))
