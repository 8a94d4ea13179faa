"""The runner: one object that drives training, validation and testing of a model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from simtrain.config import load_cfg
from simtrain.runner.activation_checkpointing import checkpointed_modules
from simtrain.runner.base_callback import BaseCallBack
from simtrain.runner.cached_train_loop import CachedTrainLoop
from simtrain.runner.checkpoints.from_config import check_resume, checkpoint_callback
from simtrain.runner.checkpoints.load_weights import begin_with, load_best
from simtrain.runner.config_loggers import config_loggers, listed_loggers
from simtrain.runner.default_callbacks import default_callbacks
from simtrain.runner.evaluation_loops import TestLoop, ValidLoop
from simtrain.runner.lent_settings import check_optimizer
from simtrain.runner.lightning_trainer import lightning_trainer
from simtrain.runner.loop_support import LoopSupport
from simtrain.runner.quiet_lightning import quiet_lightning
from simtrain.runner.run_log import RunLog
from simtrain.runner.run_record import write_record
from simtrain.runner.runner_checks import check_epochs, check_labels, check_loaders, check_loop, check_model
from simtrain.runner.runner_state import RunnerState
from simtrain.runner.stage_evaluators import TEST, TRAIN, VALIDATION, StageEvaluators, as_evaluator
from simtrain.runner.train_loop import TrainLoop
from simtrain.training import BaseModel


class Runner(LoopSupport):
    """Trains, validates and tests a :class:`simtrain.BaseModel` on ``lightning.Trainer``.

    The given loaders are prepared by the model: for a :class:`simtrain.TrainableModel` caches are filled first, and
    the encoders' collating runs in the loaders' workers. No loader, data set or Lightning callback is changed.

    Training runs in a :class:`~simtrain.runner.TrainLoop`, or, where every encoder is cached and there is one device,
    in a :class:`~simtrain.runner.CachedTrainLoop`, which takes the same steps several times as fast.

    Args:
        model: The model.
        epochs: Passes over the training data; default: ``training.epochs`` of the config.
        train_data_loader: Loader for :meth:`train`; without it, training is not available.
        valid_data_loader: Loader for :meth:`valid`, also run in training, as the config's section ``training`` says;
            by default after each epoch.
        test_data_loader: Loader for :meth:`test`.
        train_loop: What runs the training: an object whose method ``run()`` is called, and whose ``runner`` is set to
            this one before; see :class:`~simtrain.runner.TrainLoop`. Default: as ``training.loop`` says.
        valid_loop: The same for validation, alone and in training; see :class:`~simtrain.runner.ValidLoop`.
        test_loop: The same for tests; see :class:`~simtrain.runner.TestLoop`.
        train_evaluator: A :class:`simtrain.Evaluator`, or what it is made of, that measures the training set at the
            end of each epoch.
        valid_evaluator: One that measures each validation.
        test_evaluator: One that measures each test.
        optimizer: The optimizer. Default: the model's own, or else the config's (by default AdamW).
        cfg: A config whose section ``training`` says how to run (devices, precision, gradient accumulation and
            clipping, averaging of weights, loop), beside ``optimizer`` and ``scheduler``; default: the schema's.
        callbacks: :class:`~simtrain.BaseCallBack` and Lightning callbacks, used beside the runner's own.
        logger: Lightning loggers; None logs nowhere.

    Attributes:
        state: Where the run is; see :class:`~simtrain.runner.RunnerState`.
        optimizer: The optimizer that was given, then that of the latest training (all, where there are several).
        scheduler: The learning-rate schedule of the latest training; None before one, or where there is none.
        callbacks: All callbacks, in the order in which they are called.
        checkpoints: What saves the run; None where nothing is saved.
        logger: The program's log.
        loggers: The Lightning loggers.

    Raises:
        ConfigError: ``epochs`` is not positive, a loader, a loop or an evaluator is none, or the config's section
            ``training`` cannot be run on this machine.
        ContractError: The model, the optimizer or a callback is of another kind.
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

    callback_kinds = (BaseCallBack, Callback)

    def __init__(
        self,
        model: BaseModel,
        epochs: int | None = None,
        train_data_loader: DataLoader[Any] | None = None,
        valid_data_loader: DataLoader[Any] | None = None,
        test_data_loader: DataLoader[Any] | None = None,
        train_loop: Any = None,
        valid_loop: Any = None,
        test_loop: Any = None,
        train_evaluator: Any = None,
        valid_evaluator: Any = None,
        test_evaluator: Any = None,
        optimizer: Optimizer | None = None,
        cfg: Mapping[str, Any] | DictConfig | None = None,
        *,
        callbacks: Sequence[Any] = (),
        logger: Logger | Sequence[Logger] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.cfg = load_cfg(cfg)
        check_resume(self.cfg)
        self.checkpoints = checkpoint_callback(self.cfg)
        self.epochs = self.cfg.training.epochs if epochs is None else epochs
        self.loaders = {"train": train_data_loader, "valid": valid_data_loader, "test": test_data_loader}
        self.train_loop, self.valid_loop, self.test_loop = train_loop, valid_loop, test_loop
        self.train_evaluator, self.valid_evaluator = train_evaluator, valid_evaluator
        self.test_evaluator, self.optimizer = test_evaluator, optimizer
        self.loggers = [*listed_loggers(logger), *config_loggers(self.cfg)]
        check_model(model)
        check_epochs(self.epochs)
        check_loaders(self.loaders)
        self.state = RunnerState(model, self.epochs)
        self.setup_launch_strategy()
        self.setup_logger()
        self.setup_model_optimizer()
        self.setup_loop()
        self.setup_callbacks(callbacks)
        self.setup_evaluator()
        with quiet_lightning():
            self.make_trainer()

    # ------------------------------------------------------------------------------------------------- what one calls

    def fit(self) -> BaseModel:
        """Train for all epochs, with validation where it is due.

        An exception is logged, told to the callbacks (``on_exception``), and raised as it is.

        Returns:
            The trained model.
        """
        self._broke_off = False
        try:
            self.before_fit()
            model = self.train()
        except BaseException as error:
            self._broke_off = True
            self._log_exception(error)
            self.on_exception(error)
            self.after_fit()
            raise
        self.after_fit()
        return model

    def train(self) -> BaseModel:
        """Run the training loop, without the hooks of :meth:`fit`.

        Returns:
            The trained model.

        Raises:
            ConfigError: There is neither a training loader nor a loop of your own.
        """
        self._run("train", self.train_loop)
        if self.cfg.checkpoint.load_best:
            self.load_best()
        return self.model

    def load_best(self) -> str:
        """Put the weights of the best checkpoint into the model; gives its path.

        Raises:
            CheckpointError: There is none: nothing was saved, or the monitored figure was never logged.
        """
        return load_best(self.model, self.checkpoints)

    def valid(self) -> dict[str, float]:
        """Validate once.

        Returns:
            The evaluator's figures under their own names, beside all that is logged of the validation stage.

        Raises:
            ConfigError: There is neither a validation loader nor a loop of your own.
        """
        figures: dict[str, float] = self._run("valid", self.valid_loop)
        return figures

    def test(self) -> dict[str, float]:
        """Test once.

        Returns:
            The evaluator's figures under their own names, beside all that is logged of the test stage.

        Raises:
            ConfigError: There is neither a test loader nor a loop of your own.
        """
        figures: dict[str, float] = self._run("test", self.test_loop)
        return figures

    def before_fit(self) -> None:
        """Open the log, keep the config and what it runs on in the run's folder, and tell every callback."""
        self._log.open()
        if self.cfg.run_dir is not None and self.state.is_main_process:
            write_record(self.cfg, Path(self.cfg.run_dir))
        super().before_fit()

    def after_fit(self) -> None:
        """Tell every callback; where the fit broke off, what one of them breaks on is logged alone."""
        try:
            (self._tell_all if self._broke_off else self._tell)("after_fit")
        finally:
            self._log.close()

    # ---------------------------------------------------------------------------- how it is put together, in this order

    def setup_launch_strategy(self) -> None:
        """Find out on what the config runs: device, processes, precision."""
        with quiet_lightning():
            self.state.describe(lightning_trainer(self.cfg.training, self.epochs))

    def setup_logger(self) -> None:
        """Take the program's log; while a fit runs, at the level and into the file that the config says."""
        self.logger = logging.getLogger("simtrain")
        self._log = RunLog(self.cfg, self.state)

    def setup_model_optimizer(self) -> None:
        """Load the weights to begin with; check that the optimizer is one for the model.

        Which one it is, a run decides: the model's comes first.
        """
        training = self.cfg.training
        if training.load_from is not None and training.resume_from is None:  # a resumed run has weights of its own
            begin_with(self.model, training.load_from)
        check_optimizer(self.optimizer, self.model, self.cfg)
        checkpointed_modules(self.model, training.activation_checkpoint)
        self.state.activation_checkpoint = list(training.activation_checkpoint)
        self._given_optimizer = self.optimizer

    def setup_loop(self) -> None:
        """Take the default loop for each stage that has a loader and no loop."""
        self.state.size_up(**self.loaders)
        for word, kind, loop in (
            ("train_loop", "TrainLoop", self.train_loop),
            ("valid_loop", "ValidLoop", self.valid_loop),
            ("test_loop", "TestLoop", self.test_loop),
        ):
            if loop is not None:
                check_loop(word, kind, loop)
        check_labels(self.model, self.loaders["train"])
        loop = self.cfg.training.loop
        if self.train_loop is None and self.loaders["train"] is not None:
            self.train_loop = TrainLoop() if loop == "trainer" else CachedTrainLoop(required=loop == "cached")
        if self.valid_loop is None and self.loaders["valid"] is not None:
            self.valid_loop = ValidLoop()
        if self.test_loop is None and self.loaders["test"] is not None:
            self.test_loop = TestLoop()

    def setup_callbacks(self, callbacks: Sequence[Any] = ()) -> None:
        """Register the default callbacks and those given."""
        given = self._check_callbacks(callbacks)
        self.register_callbacks([*default_callbacks(self.cfg, given), *given])

    def setup_evaluator(self) -> None:
        """Make evaluators of what was given, and tell them of the run's state."""
        given = {
            TRAIN: ("train_evaluator", self.train_evaluator),
            VALIDATION: ("valid_evaluator", self.valid_evaluator),
            TEST: ("test_evaluator", self.test_evaluator),
        }
        made = {stage: as_evaluator(one, word) for stage, (word, one) in given.items() if one is not None}
        for stage, evaluator in made.items():
            setattr(self, given[stage][0], evaluator)
            if hasattr(evaluator, "setup_state"):
                evaluator.setup_state(self.state)
        self.stage_evaluators = StageEvaluators(made)

    def _log_exception(self, error: BaseException) -> None:
        # Where no log was set up, Python is going to print all of this by itself.
        if self.logger.hasHandlers():
            self.logger.critical("training broke off: %s: %s", type(error).__name__, error, exc_info=error)
