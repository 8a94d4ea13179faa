"""The loops of validation and testing: Lightning's, alone or in the middle of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simtrain.training.stages import TrainStage

if TYPE_CHECKING:
    from simtrain.runner.runner import Runner


class _EvaluationLoop:
    """One pass over a stage's data; see :class:`ValidLoop`."""

    stage: str
    named: TrainStage
    runner: Runner

    def run(self) -> dict[str, float]:
        """Measure once.

        Returns:
            Name → figure: those of the runner's evaluator under their own names, beside all that was logged.
        """
        trainer = self.runner.state.trainer
        in_training = trainer is not None and trainer.state.fn == "fit"
        logged = self._within(trainer) if in_training else self._alone()
        return {**logged, **self.runner.stage_evaluators.figures.get(self.named, {})}

    def _alone(self) -> dict[str, float]:
        runner = self.runner
        trainer = runner.make_trainer()
        runner.place_model(trainer)
        run = trainer.validate if self.named is TrainStage.VALIDATION else trainer.test
        with runner.state.of(trainer):
            run(runner.model, runner.prepared_loader(self.stage), verbose=False)
        return {name: float(value) for name, value in trainer.callback_metrics.items()}

    def _within(self, trainer: Any) -> dict[str, float]:
        # As Lightning's own loop validates between two batches: the same trainer, whose present stage is another one.
        loop: Any = trainer.fit_loop.epoch_loop.val_loop if self.named is TrainStage.VALIDATION else trainer.test_loop
        if loop._combined_loader is None:
            loop._data_source.instance = self.runner.prepared_loader(self.stage)
        loop.verbose, connector = False, trainer._logger_connector
        first = connector._first_loop_iter
        setattr(trainer, "validating" if self.named is TrainStage.VALIDATION else "testing", True)
        try:
            logged = loop.run()
        finally:
            trainer.training = True
            connector._first_loop_iter = first
        return {name: float(value) for figures in logged for name, value in figures.items()}


class ValidLoop(_EvaluationLoop):
    """Validates a runner's model with ``lightning.Trainer``.

    Any object with a method ``run()`` that returns figures can take its place (``Runner(valid_loop=...)``): the runner
    sets its attribute ``runner``, calls it for :meth:`~simtrain.Runner.valid`, and wherever validation is due in a
    training.

    Attributes:
        runner: The runner, with the model, the loaders and the config.

    Example:
        >>> class Named(ValidLoop):
        ...     def run(self):
        ...         return {f"mine/{name}": value for name, value in super().run().items()}
        >>> Named().stage
        'valid'
    """

    stage, named = "valid", TrainStage.VALIDATION


class TestLoop(_EvaluationLoop):
    """Tests a runner's model with ``lightning.Trainer``; what holds for :class:`ValidLoop` holds here.

    Example:
        >>> TestLoop().stage
        'test'
    """

    __test__ = False  # its name looks like that of a test
    stage, named = "test", TrainStage.TEST
