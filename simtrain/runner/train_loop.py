"""The training loop: Lightning's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning
from torch.utils.data import DataLoader

from simtrain.runner.activation_checkpointing import activations_recomputed
from simtrain.runner.checkpoints.resume_source import fits_checkpoint
from simtrain.runner.resumption import make_resumable
from simtrain.runner.same_exception import same_exception

if TYPE_CHECKING:
    from simtrain.runner.runner import Runner


class TrainLoop:
    """Trains a runner's model with ``lightning.Trainer``.

    Any object with a method ``run()`` can take its place (``Runner(train_loop=...)``): the runner that uses it sets its
    attribute ``runner`` first, and calls ``run()`` once for each ``fit()``. A loop without a trainer calls the
    runner's hooks itself (``runner.before_train()``, ...), and counts in ``runner.state``.

    Attributes:
        runner: The runner, with the model, the loaders and the config.

    Example:
        >>> class Twice(TrainLoop):
        ...     def run(self):
        ...         for _ in range(2):
        ...             super().run()
        >>> hasattr(Twice(), "run")
        True
    """

    runner: Runner

    def run(self) -> Any:
        """Train for all epochs.

        Returns:
            The model.
        """
        runner = self.runner
        trainer = runner.make_trainer()
        runner.place_model(trainer)
        train_loader = runner.prepared_loader("train")
        valid_loader = runner.prepared_loader("valid") if runner.validates_by_trainer else None
        make_resumable(trainer)
        self.prepare(trainer, train_loader)
        resumed = runner.resume_words()
        patterns = runner.cfg.training.activation_checkpoint
        with (
            runner.state.of(trainer),
            fits_checkpoint(resumed.get("ckpt_path")),
            same_exception(runner.lifecycle),
            activations_recomputed(runner.model, patterns),
        ):
            trainer.fit(runner.model, train_loader, valid_loader, **resumed)
        return runner.model

    def prepare(self, trainer: lightning.Trainer, train_loader: DataLoader[Any]) -> None:
        """Called with the trainer before it starts, and the loader that the model has prepared. Default: nothing."""
