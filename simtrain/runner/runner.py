"""The runner: one object that drives training, validation and testing of a model."""

from __future__ import annotations

import inspect
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import SingleDeviceStrategy
from omegaconf import DictConfig
from torch.utils.data import DataLoader

from simtrain import registry
from simtrain.config import load_cfg, plain
from simtrain.data import check_groups
from simtrain.errors import ConfigError, ContractError, DataError
from simtrain.losses import SimilarityLoss
from simtrain.runner.cached_train_loop import CachedTrainLoop
from simtrain.runner.train_loop import TrainLoop
from simtrain.training import BaseModel
from simtrain.training.loss_parameters import check_training_groups


class Runner:
    """Trains, validates and tests a :class:`simtrain.BaseModel` on ``lightning.Trainer``.

    The given loaders are prepared by the model: for a :class:`simtrain.TrainableModel` caches are filled first, and
    the encoders' collating runs in the loaders' workers. No loader, data set or callback is changed.

    A model that does not say which optimizer it wants gets the config's (by default AdamW). Where its ``train_step``
    updates the parameters itself, the config's gradient accumulation and clipping go to its ``optim_wrapper``.

    Training runs in a :class:`~simtrain.runner.TrainLoop`, or, where every encoder is cached and there is one device,
    in a :class:`~simtrain.runner.CachedTrainLoop`, which takes the same steps several times as fast.

    Args:
        model: The model.
        epochs: Passes over the training data; default: ``training.epochs`` of the config.
        train_data_loader: Loader for :meth:`train`; without it, training is not available.
        valid_data_loader: Loader for :meth:`valid`, also run after each training epoch.
        test_data_loader: Loader for :meth:`test`.
        train_loop: What runs the training: an object whose method ``run()`` is called, and whose ``runner`` is set to
            this one before; see :class:`~simtrain.runner.TrainLoop`. Default: as ``training.loop`` says.
        cfg: A config whose section ``training`` says how to run (devices, precision, gradient accumulation and
            clipping, averaging of weights, progress bar, loop), beside ``optimizer`` and ``scheduler``; default: the
            schema's defaults.
        callbacks: Lightning callbacks, used beside the runner's own.
        logger: Lightning loggers; None logs nowhere.

    Raises:
        ConfigError: ``epochs`` is not positive, the model is of another kind, a loader is none, or the config's
            section ``training`` cannot be run on this machine.
        DataError: A loader gives no batch, or the labels of the training groups are all equal or all different.

    Example:
        >>> from simtrain.data import PairsSimilarityDataLoader, SimilarityPairSample
        >>> from simtrain.encoders import PrecomputedEncoder
        >>> from simtrain.heads import SkipConnectionHead
        >>> from simtrain.losses import MultipleNegativesRankingLoss
        >>> from simtrain import TrainableModel
        >>> model = TrainableModel(
        ...     encoders=PrecomputedEncoder(2), head=SkipConnectionHead, loss=MultipleNegativesRankingLoss()
        ... )
        >>> samples = [SimilarityPairSample([1.0, 0.0], [0.9, 0.1]), SimilarityPairSample([0.0, 1.0], [0.2, 0.8])]
        >>> loader = PairsSimilarityDataLoader(samples, batch_size=2)
        >>> runner = Runner(model, epochs=1, train_data_loader=loader, valid_data_loader=loader)
        >>> runner.fit() is model
        True
        >>> sorted(runner.valid())
        ['validation_loss']
    """

    def __init__(
        self,
        model: BaseModel,
        epochs: int | None = None,
        train_data_loader: DataLoader[Any] | None = None,
        valid_data_loader: DataLoader[Any] | None = None,
        test_data_loader: DataLoader[Any] | None = None,
        train_loop: Any = None,
        *,
        cfg: Mapping[str, Any] | DictConfig | None = None,
        callbacks: Sequence[Callback] = (),
        logger: Logger | Sequence[Logger] | None = None,
    ) -> None:
        self.model = model
        self.cfg = load_cfg(cfg)
        self.epochs = self.cfg.training.epochs if epochs is None else epochs
        self.loaders = {"train": train_data_loader, "valid": valid_data_loader, "test": test_data_loader}
        self.callbacks = list(callbacks)
        self.logger = logger
        self.train_loop = self._default_loop() if train_loop is None else train_loop
        self._check()

    def fit(self) -> BaseModel:
        """Train for all epochs, with validation after each where there is a validation loader.

        Returns:
            The trained model.
        """
        return self.train()

    def train(self) -> BaseModel:
        """Train for all epochs; the same as :meth:`fit`."""
        with _quiet_lightning(), self._settings_lent():
            self.train_loop.runner = self
            self.train_loop.run()
        return self.model

    def valid(self) -> dict[str, float]:
        """Validate once.

        Returns:
            The logged figures of the validation stage.
        """
        return self._evaluated("valid", lightning.Trainer.validate)

    def test(self) -> dict[str, float]:
        """Test once.

        Returns:
            The logged figures of the test stage.
        """
        return self._evaluated("test", lightning.Trainer.test)

    def _evaluated(self, stage: str, run: Callable[..., Any]) -> dict[str, float]:
        with _quiet_lightning(), self._settings_lent():
            trainer = self.make_trainer()
            self.place_model(trainer)
            run(trainer, self.model, self.prepared_loader(stage), verbose=False)
        return {name: float(value) for name, value in trainer.callback_metrics.items()}

    def _check(self) -> None:
        if not isinstance(self.model, BaseModel):
            raise ContractError(
                f"a Runner takes a BaseModel, or a TrainableModel, which is one; got {type(self.model).__name__} (to "
                f"compile a model, call model.compile())"
            )
        if not isinstance(self.epochs, int) or isinstance(self.epochs, bool) or self.epochs < 1:
            raise ConfigError(f"epochs should be a positive integer, got {self.epochs!r}")
        if not callable(getattr(self.train_loop, "run", None)):
            raise ConfigError(
                f"train_loop should be an object with a method run(), such as a TrainLoop, got "
                f"{type(self.train_loop).__name__}"
            )
        for stage, loader in self.loaders.items():
            if loader is not None and not isinstance(loader, DataLoader):
                raise ConfigError(f"{stage}_data_loader should be a DataLoader, got {type(loader).__name__}")
            if loader is not None:
                _check_batches(stage, loader)
        train = self.loaders["train"]
        by_groups = "groups" in getattr(getattr(self.model, "loss", None), "target_names", ())
        if train is not None and by_groups and hasattr(train.dataset, "groups"):
            check_groups(train.dataset)
        if train is not None and by_groups:
            check_training_groups(cast("SimilarityLoss", self.model.loss), train)
        with _quiet_lightning():
            self.make_trainer()

    @contextmanager
    def _settings_lent(self) -> Iterator[None]:
        # For this run alone: the model's own settings come first, and another runner may have others.
        cfg, model = self.cfg, self.model
        own = (model.make_optimizer, model.make_scheduler, model.optim_wrapper_cfg)
        clip = None if cfg.training.grad_clip is None else {"max_norm": cfg.training.grad_clip}
        updating = {"accumulative_counts": cfg.training.gradient_accumulation, "clip_grad": clip}
        scheduler = cfg.scheduler and partial(registry.schedulers.build, plain(cfg.scheduler))
        model.make_optimizer = own[0] or partial(registry.optimizers.build, plain(cfg.optimizer))
        model.make_scheduler = own[1] or scheduler
        model.optim_wrapper_cfg = own[2] or updating
        try:
            yield
        finally:
            model.make_optimizer, model.make_scheduler, model.optim_wrapper_cfg = own

    def _default_loop(self) -> TrainLoop:
        loop = self.cfg.training.loop
        return TrainLoop() if loop == "trainer" else CachedTrainLoop(required=loop == "cached")

    def _own_callbacks(self) -> list[Callback]:
        ema = self.cfg.training.ema
        return [] if ema is None else [registry.callbacks.build({"type": "EMA", **plain(ema)})]

    def prepared_loader(self, stage: str) -> DataLoader[Any]:
        """The loader of a stage as the model has prepared it.

        Args:
            stage: ``"train"``, ``"valid"`` or ``"test"``.

        Raises:
            ConfigError: There is none.
        """
        loader = self.loaders[stage]
        if loader is None:
            raise ConfigError(f"this runner has no {stage}_data_loader; pass one to use this stage")
        setup: Any = self.model.setup_dataloader
        # A setup_dataloader of the model's own may know nothing of stages.
        knows_stage = "training" in inspect.signature(setup).parameters
        prepared: DataLoader[Any] = setup(loader, training=stage == "train") if knows_stage else setup(loader)
        return prepared

    def place_model(self, trainer: lightning.Trainer | None = None) -> None:
        """Move the model to where a trainer is going to run it, so that caches are filled, and kept, there.

        Args:
            trainer: The trainer. Default: one such as :meth:`make_trainer` gives.
        """
        if trainer is None:
            with _quiet_lightning():
                trainer = self.make_trainer()
        if type(trainer.strategy) is SingleDeviceStrategy:
            self.model.to(trainer.strategy.root_device)

    def make_trainer(self) -> lightning.Trainer:
        """A trainer as the config's section ``training`` asks for it.

        Raises:
            ConfigError: It cannot be had on this machine.
        """
        training = self.cfg.training
        bar = sys.stderr.isatty() if training.progress_bar is None else training.progress_bar
        try:
            return self._lightning_trainer(bar)
        except (ValueError, RuntimeError, MisconfigurationException) as error:
            raise ConfigError(f"lightning cannot run with this config's section 'training': {error}") from error

    def _lightning_trainer(self, bar: bool) -> lightning.Trainer:
        training, by_trainer = self.cfg.training, self.model.automatic_optimization
        return lightning.Trainer(
            max_epochs=self.epochs,
            accelerator=training.device,
            devices=training.devices,
            strategy=training.strategy,
            precision=training.precision,
            accumulate_grad_batches=training.gradient_accumulation if by_trainer else 1,
            gradient_clip_val=training.grad_clip if by_trainer else None,
            callbacks=[*self.callbacks, *self._own_callbacks()],
            logger=self.logger or False,
            enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in self.callbacks),
            enable_progress_bar=bar,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
        )


def _check_batches(stage: str, loader: DataLoader[Any]) -> None:
    try:
        n_batches = len(loader)
    except TypeError:
        return  # a stream, whose length shows when it is read
    if n_batches == 0:
        raise DataError(
            f"the {stage} loader gives no batch: {len(cast('Any', loader.dataset))} samples, batch size "
            f"{loader.batch_size}, drop_last={loader.drop_last}; make the batch smaller or keep the last one"
        )


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    talk = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = talk.level
    talk.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Lightning advises more workers for every loader; one over cache rows has nothing for them to do.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # Validation is optional here.
        warnings.filterwarnings("ignore", message=".*have no `val_dataloader`.*")
        # Frozen encoders are in eval mode on purpose.
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        # Lightning 2.6 asks torch's pytree in a way that torch 2.13 deprecates.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        try:
            yield
        finally:
            talk.setLevel(level)
