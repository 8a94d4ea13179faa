"""The model in training: encoders, head, loss, cache, memory and metrics behind one contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from simtrain import registry
from simtrain.cache import CacheConfig, CachedModel
from simtrain.encoders import Encoder
from simtrain.errors import ConfigError
from simtrain.heads import EmptyHead, EncoderHead
from simtrain.losses import SimilarityLoss
from simtrain.models import SimilarityModel
from simtrain.models.eval_mode import eval_mode
from simtrain.models.joined_encoders import DEFAULT_NAME, joint_size
from simtrain.training.attached_evaluator import AttachedEvaluator, attached_evaluators
from simtrain.training.attached_metric import AttachedMetric
from simtrain.training.class_update import goes_on_unannounced, hard_class_loaders, update_classes
from simtrain.training.epoch_evaluation import EpochEvaluation
from simtrain.training.evaluated_epochs import EvaluatedEpochs
from simtrain.training.loss_parameters import (
    check_loss_lr,
    check_training_groups,
    optimizer_with_loss,
    train_loss_parameters,
)
from simtrain.training.memory import BatchMemory
from simtrain.training.model_settings import built
from simtrain.training.parts import model_parts
from simtrain.training.repeated_items import RepeatedItems
from simtrain.training.trainer_steps import MakeOptimizer, MakeScheduler
from simtrain.xbm import XbmConfig

MakeHead = Callable[[int], EncoderHead]


@dataclass(frozen=True)
class _Parts:
    """What was passed to the constructor; the default hooks return it."""

    encoders: Encoder | Mapping[str, Encoder] | None
    head: EncoderHead | MakeHead | None
    loss: SimilarityLoss | None
    cache: CacheConfig | None
    xbm: XbmConfig | None
    metrics: AttachedMetric | Sequence[AttachedMetric]
    evaluators: Any


@registry.models.register_module()
class TrainableModel(EvaluatedEpochs):
    """A similarity model together with everything that training it needs.

    There are two ways to say the same model: pass the parts, or subclass and override the ``configure_*`` hooks
    (plain attributes that they read may be set before ``super().__init__()``). It runs alone
    (``train_step(batch)``), under a stock ``lightning.Trainer`` and under :class:`simtrain.Runner`. Batches may be
    lists of samples, what the similarity loaders yield, or ``(features, targets)`` that are collated already.

    Args:
        encoders: One encoder, or encoders by name.
        head: A head, or a function from the joint size of the encoders' embeddings to one. Default: no head.
        loss: The loss.
        optimizer: Function from the trainable parameters to an optimizer. Default: AdamW with rate 1e-3.
        loss_lr: Rate of the loss's own parameters (class weights, a learnt temperature). Default: that of all others.
        scheduler: Function from ``(optimizer, total_steps)`` to a learning-rate schedule, stepped after each
            optimizer step. Default: none.
        cache: Which frozen encoders to cache, and where. Default: none.
        xbm: Cross-batch memory. Default: none.
        metrics: Metrics to log for each batch.
        evaluators: What measures whole data sets at the end of each epoch, see
            :class:`~simtrain.training.attached_evaluator.AttachedEvaluator`: one, several, or several by name.
        data_preprocessor: Called with ``((features, targets), training)`` of each batch, or its config. Default:
            :class:`~simtrain.training.BaseDataPreprocessor`, which moves them to the model's device.
        init_cfg: How weights are initialised once the model is built; see :func:`simtrain.training.initialize`.

    Raises:
        ConfigError: A part is missing, or parts do not fit each other.

    Example:
        >>> import torch
        >>> from simtrain import TrainableModel
        >>> from simtrain.data import SimilarityPairSample
        >>> from simtrain.encoders import PrecomputedEncoder
        >>> from simtrain.heads import SkipConnectionHead
        >>> from simtrain.losses import MultipleNegativesRankingLoss
        >>> model = TrainableModel(
        ...     encoders=PrecomputedEncoder(2), head=SkipConnectionHead, loss=MultipleNegativesRankingLoss()
        ... )
        >>> batch = [SimilarityPairSample([1.0, 0.0], [0.9, 0.1]), SimilarityPairSample([0.0, 1.0], [0.2, 0.8])]
        >>> model.train_step(batch)["loss"].requires_grad
        True
    """

    def __init__(
        self,
        *,
        encoders: Encoder | Mapping[str, Encoder] | None = None,
        head: EncoderHead | MakeHead | None = None,
        loss: SimilarityLoss | None = None,
        optimizer: MakeOptimizer | None = None,
        scheduler: MakeScheduler | None = None,
        cache: CacheConfig | None = None,
        xbm: XbmConfig | None = None,
        metrics: AttachedMetric | Sequence[AttachedMetric] = (),
        data_preprocessor: Mapping[str, Any] | nn.Module | None = None,
        init_cfg: Mapping[str, Any] | list[Any] | None = None,
        loss_lr: float | int | None = None,
        evaluators: Any = (),
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self._parts = _Parts(encoders, head, loss, cache, xbm, metrics, evaluators)
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self._model = self._assemble()
        self._loss = self.configure_loss()
        if not isinstance(self._loss, SimilarityLoss):
            raise ConfigError(f"the loss should be a SimilarityLoss, got {type(self._loss).__name__}")
        self.loss_lr = check_loss_lr(loss_lr, self._loss)
        # No module itself: its parts are this model's own and must not be registered twice.
        self._cached = CachedModel(self._model, self.configure_caches())
        self._memory = BatchMemory.build(self.configure_xbm(), self._loss, self._model.embedding_size, self._model)
        # Every process fills a memory of its own with the global batch: nothing is to be sent around for it.
        self._ddp_params_and_buffers_to_ignore = [
            name for name, _ in self.named_buffers() if name.startswith("_memory.buffer.")
        ]
        attached = self.configure_metrics()
        self._metrics = nn.ModuleList([attached] if isinstance(attached, AttachedMetric) else attached)
        self._repeats, self._loader_number = RepeatedItems(), 0
        self._evaluation = EpochEvaluation(attached_evaluators(self.configure_evaluators()))

    def configure_encoders(self) -> Encoder | Mapping[str, Encoder]:
        """The encoders, one or by name. Override it, or pass ``encoders=``."""
        if self._parts.encoders is None:
            raise ConfigError("a TrainableModel needs encoders: pass encoders=… or override configure_encoders()")
        return self._parts.encoders

    def configure_head(self, input_embedding_size: int) -> EncoderHead:
        """The head on top of the joint embedding. Override it, or pass ``head=``; default: no transformation.

        Args:
            input_embedding_size: Sum of the encoders' embedding sizes.
        """
        head = self._parts.head
        if head is None:
            return EmptyHead(input_embedding_size)
        return cast("EncoderHead", head) if isinstance(head, nn.Module) else head(input_embedding_size)

    def configure_loss(self) -> SimilarityLoss:
        """The loss. Override it, or pass ``loss=``."""
        if self._parts.loss is None:
            raise ConfigError("a TrainableModel needs a loss: pass loss=… or override configure_loss()")
        return self._parts.loss

    def configure_caches(self) -> CacheConfig | None:
        """Which frozen encoders to cache, and where; None caches nothing. Override it, or pass ``cache=``."""
        return self._parts.cache

    def configure_xbm(self) -> XbmConfig | None:
        """The cross-batch memory; None uses none. Override it, or pass ``xbm=``."""
        return self._parts.xbm

    def configure_metrics(self) -> AttachedMetric | Sequence[AttachedMetric]:
        """Metrics that are logged for the batches of each stage. Override it, or pass ``metrics=``."""
        return self._parts.metrics

    def configure_evaluators(self) -> AttachedEvaluator | Sequence[Any] | Mapping[str, Any] | Any:
        """What measures whole data sets at the end of each epoch. Override it, or pass ``evaluators=``."""
        return self._parts.evaluators

    @property
    def model(self) -> SimilarityModel:
        """Encoders and head: what is trained, saved and served."""
        return self._model

    @property
    def loss(self) -> SimilarityLoss:
        """The loss that is minimised."""
        return self._loss

    @property
    def cached(self) -> CachedModel:
        """The model as it reads from its caches, to embed items without running frozen encoders again."""
        return self._cached

    def save_servable(self, path: str | Path, card: str | Mapping[str, Any] | None = None) -> None:
        """Save encoders and head as a folder that :meth:`simtrain.SimilarityModel.load` reads, without lightning.

        Args:
            path: The folder.
            card: What its ``README.md`` says of data, metrics and config; see :meth:`simtrain.SimilarityModel.save`.
        """
        self._model.save(path, card=card)

    def setup_dataloader(self, dataloader: DataLoader[Any], training: bool = True) -> DataLoader[Any]:
        """Prepare a loader for this model: fill the caches, and move the encoders' collating into its workers.

        The given loader stays as it is; train with the returned one. Calling this is optional: every step takes the
        batches of an unprepared loader too, only more slowly.

        Args:
            dataloader: A loader of samples.
            training: False for one that is not trained on: a cache with views then encodes its items alone.

        Returns:
            A loader of ``(features, targets)``. Where every encoder is cached its batches are cache rows.
        """
        self._cached.open(self.device)
        return self._cached.prepare(dataloader, training)

    def on_fit_start(self) -> None:
        """Put the loss's parameters into the optimizer, where a ``configure_optimizers`` of your own left them out."""
        schedules = self.trainer.lr_scheduler_configs
        train_loss_parameters(self._loss, self.trainer.optimizers, bool(schedules), self.loss_lr)

    def on_train_start(self) -> None:
        """Fill the caches with the training items, for a trainer that was given an unprepared loader.

        The memory of a fit that resumes none is emptied: numbers of items and groups may be those of other data now.
        """
        if self._memory is not None and self.trainer.ckpt_path is None:
            self._memory.buffer.clear()
        check_training_groups(self._loss, self.trainer.train_dataloader)
        self._cached.open_for(self.trainer.train_dataloader, self.device, training=True)
        if goes_on_unannounced(self.trainer.fit_loop):
            self._update_classes()

    def on_train_epoch_start(self) -> None:
        """Look whether caches still hold; embed what a :class:`~simtrain.data.HardClassSampler` wants to know."""
        trainer: Any = self.trainer
        if trainer.reload_dataloaders_every_n_epochs:  # this epoch's loader may be another, of other items
            self._cached.open_for(self.trainer.train_dataloader, self.device, training=True)
        self._cached.keep_up(self.trainer.train_dataloader, self.device, self.current_epoch)
        self._update_classes()

    def on_validation_start(self) -> None:
        """Fill the caches with the validation items."""
        self._cached.open_for(self.trainer.val_dataloaders, self.device)
        super().on_validation_start()

    def on_test_start(self) -> None:
        """Fill the caches with the test items."""
        self._cached.open_for(self.trainer.test_dataloaders, self.device)
        super().on_test_start()

    @classmethod
    def _built(cls, words: Mapping[str, Any]) -> dict[str, Any]:
        return built(cls, model_parts(words))

    def _optimizer_of(self, parameters: list[nn.Parameter]) -> Optimizer:
        return optimizer_with_loss(super()._optimizer_of, parameters, self._loss, self.loss_lr)

    def _assemble(self) -> SimilarityModel:
        encoders = self.configure_encoders()
        named = dict(encoders) if isinstance(encoders, Mapping) else {DEFAULT_NAME: encoders}
        return SimilarityModel(named, self.configure_head(joint_size(named)))

    def _update_classes(self) -> None:
        for loader in hard_class_loaders(self.trainer.train_dataloader):
            with eval_mode(self), self.trainer.precision_plugin.forward_context():
                update_classes(loader, self._embed_batch, self.all_gather)
