"""The training step of a model whose encoders are all cached, without what cannot change within an epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from simtrain.cache.cached_encoder import CachedEncoder
from simtrain.cache.embedding_cache import EmbeddingCache
from simtrain.cache.views import ViewLookup, own_rows
from simtrain.data.collate import META
from simtrain.losses.temperature import ScheduledTemperature, step_temperatures
from simtrain.models import SimilarityModel
from simtrain.models.joined_encoders import join
from simtrain.training.data_preprocessor import BaseDataPreprocessor
from simtrain.training.gathering import n_processes
from simtrain.training.loss_call import call_loss
from simtrain.training.similarity_steps import SimilaritySteps
from simtrain.training.stages import TrainStage
from simtrain.training.trainer_steps import TrainerSteps

#: Methods that this step stands in for: a model with its own is trained by that.
REPLACED = (
    *("training_step", "train_step", "forward", "_train_losses", "_step", "_training_losses", "_collated"),
    *("_alone", "_log_figures", "_share_of_window", "_checked_result"),
)
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


class CachedStep:
    """``training_step`` of a model under a trainer, on batches of cache rows; results, figures and errors are the same.

    Asked once: which methods are the model's own, where batches lie, whether there is a memory, a metric, a schedule.

    Args:
        model: A model that :meth:`suits` it, in training.
        defer: Takes the results of each step, whose figures it logs later. Default: the model logs them at once.
    """

    def __init__(self, model: SimilaritySteps, defer: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.model, self.loss, self.head = model, model._loss, model._cached.model.head
        encoders: dict[str, Any] = dict(model._cached.model.encoders.items())
        self.caches: dict[str, EmbeddingCache] = {name: encoder.cache for name, encoder in encoders.items()}
        self.defer = defer
        #: The encoder's name where there is only one: nothing is to be joined then.
        self.only = next(iter(encoders)) if len(encoders) == 1 else None
        preprocessor = model.data_preprocessor
        idle = type(preprocessor) is BaseDataPreprocessor and preprocessor.device.type == "cpu"
        self.preprocessor = None if idle else preprocessor
        self.computes_loss = not _is_own(model, "compute_loss", SimilaritySteps)
        self.hands_over = _is_own(model, "process_results", SimilaritySteps)
        self.has_schedule = any(isinstance(module, ScheduledTemperature) for module in model._loss.modules())
        self.accumulates = model.trainer.accumulate_grad_batches > 1

    @staticmethod
    def suits(model: Any) -> bool:
        """Whether a model's step is the usual one, and all of its encoders are cached."""
        if not isinstance(model, SimilaritySteps) or n_processes() > 1:
            return False
        if any(_is_own(model, name, SimilaritySteps, TrainerSteps) for name in REPLACED):
            return False
        cached = model._cached.model
        encoders = list(cached.encoders.values())
        watched = any(_is_watched(part) for part in (model, cached, *encoders))
        if any(isinstance(look_up, ViewLookup) for look_up in model._cached.training_collate.collate_fns.values()):
            return False
        usual = type(cached) is SimilarityModel and all(type(encoder) is CachedEncoder for encoder in encoders)
        watched_all = torch.nn.modules.module._has_any_global_hook()  # type: ignore[no-untyped-call]
        return usual and not watched and not watched_all

    def __call__(self, batch: Any, batch_idx: int) -> Any:
        """Loss of a batch of rows, its figures logged."""
        model = self.model
        features, targets = dict(batch[0]), dict(batch[1])
        if self.preprocessor is not None:
            features, targets = self.preprocessor((features, targets), True)
        embeddings = self._embedded(features)
        losses = self._losses(embeddings, targets, features)
        if model._metrics:
            model._log_metrics(embeddings.detach(), targets, TrainStage.TRAIN)
        if self.hands_over:
            model.process_results(embeddings, targets, batch_idx=batch_idx, stage=TrainStage.TRAIN)
        if self.has_schedule:
            step_temperatures(self.loss)
        backward = model._checked_result(losses, batch, batch_idx)
        if self.defer is None:
            model._log_figures(losses, batch, TrainStage.TRAIN)
        else:
            self.defer(losses)
        share = model._share_of_window(batch_idx) if self.accumulates else 1.0
        return backward if share == 1.0 else {**backward, "loss": backward["loss"] * share}

    def _embedded(self, features: dict[str, Any]) -> Tensor:
        if self.only is not None:
            picked = own_rows(features[self.only])
            embeddings: Tensor = self.head(
                self.caches[self.only].gather(picked, picked.device), meta=features.get(META)
            )
            return embeddings
        rows = {name: own_rows(features[name]) for name in self.caches}
        joined = join({name: cache.gather(rows[name], rows[name].device) for name, cache in self.caches.items()})
        embeddings = self.head(joined, meta=features.get(META))
        return embeddings

    def _losses(self, embeddings: Tensor, targets: dict[str, Tensor], features: dict[str, Any]) -> dict[str, Any]:
        if self.model._memory is not None or not self.computes_loss:
            return self.model._training_losses(embeddings, targets, features)
        loss = call_loss(self.loss, embeddings, targets)
        return {**self.loss.figures(), "loss": loss}


def _is_own(model: Any, name: str, *bases: type) -> bool:
    function = getattr(getattr(model, name), "__func__", None)
    return function is None or all(function is not vars(base).get(name) for base in bases)


def _is_watched(module: nn.Module) -> bool:
    # What is hooked to a module, or compiled, is met by calling it.
    return any(getattr(module, name) for name in _HOOKS) or module._compiled_call_impl is not None
