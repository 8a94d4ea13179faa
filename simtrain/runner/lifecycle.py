"""From Lightning's hooks to the runner's."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import Callback

from simtrain.runner.base_callback import BaseCallBack
from simtrain.runner.runner_base import RunnerBase
from simtrain.training.class_update import goes_on_unannounced


class Lifecycle(Callback):
    """Tells a runner, which tells its callbacks, where ``lightning.Trainer`` is.

    Args:
        runner: The runner.

    Attributes:
        exception: What broke off the run; None for nothing.
    """

    def __init__(self, runner: RunnerBase) -> None:
        self.runner = runner
        self.exception: BaseException | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Training begins; a resumed epoch, of whose beginning Lightning does not tell, begins, too."""
        schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
        self.runner.optimizer, self.runner.scheduler = _one_or_all(trainer.optimizers), _one_or_all(schedules)
        self.runner.before_train()
        if goes_on_unannounced(trainer.fit_loop):
            self.runner.before_running_epoch()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Training has ended."""
        self.runner.after_train()

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """An epoch begins."""
        self.runner.before_running_epoch()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """An epoch has ended."""
        self.runner.after_running_epoch()

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """A validation begins."""
        self.runner.before_valid()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """A validation has ended."""
        self.runner.after_valid()

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """A test begins."""
        self.runner.before_test()

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """A test has ended."""
        self.runner.after_test()

    @property
    def state_key(self) -> str:
        """One name, also where batches are told of."""
        return "Lifecycle"

    def state_dict(self) -> dict[str, Any]:
        """The states of the runner's own callbacks, with the names of their classes."""
        named = [[type(one).__name__, one.state_dict()] for one in self._keeping()]
        return {"callbacks": named} if any(state for _, state in named) else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Hand them back, to callbacks of the same classes in the same order."""
        waiting = list(self._keeping())
        for name, state in state_dict["callbacks"]:
            found = next((one for one in waiting if type(one).__name__ == name), None)
            if found is not None:
                waiting.remove(found)
                found.load_state_dict(state)

    def _keeping(self) -> list[BaseCallBack]:
        return [one for one in self.runner.callbacks if isinstance(one, BaseCallBack)]

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Keep the exception: of a ``KeyboardInterrupt`` Lightning makes an exit of the program."""
        self.exception = exception


class BatchLifecycle(Lifecycle):
    """Tells of each batch, too: apart, since hooks of batches cost a fast loop its speed."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """A batch begins."""
        self.runner.before_running_batch()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A batch has ended."""
        self.runner.after_running_batch()


def _one_or_all(parts: list[Any]) -> Any:
    return parts if len(parts) > 1 else next(iter(parts), None)
