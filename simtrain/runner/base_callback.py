"""What a callback of the runner can do, and when it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simtrain.runner.runner import Runner


class BaseCallBack:
    """Base of the runner's callbacks: override what is to happen at a point of a run.

    A fit calls, in this order::

        before_fit
          before_train
            before_running_epoch
              before_running_batch, after_running_batch      for each batch
              before_valid, after_valid                      where validation is due
              before_test, after_test                        where tests in training are asked for
            after_running_epoch                              so that it sees the epoch's validation
          after_train
        on_exception                                         where something broke off the run
        after_fit                                            in any case

    The two hooks of batches cost a training in tensors some of its speed; they are called only where some callback
    has one of its own.

    Args:
        runner: The runner; registering the callback sets it, too.

    Attributes:
        runner: The runner whose run this is: its ``model``, ``cfg``, ``state``, ``optimizer`` and ``scheduler``.

    Example:
        >>> class Greeting(BaseCallBack):
        ...     def before_fit(self):
        ...         print("training", type(self.runner.model).__name__)
        >>> issubclass(Greeting, BaseCallBack)
        True
    """

    runner: Runner

    def __init__(self, runner: Runner | None = None) -> None:
        if runner is not None:
            self.runner = runner

    def on_register(self) -> None:
        """Called when a runner takes the callback; :attr:`runner` is set."""

    def on_exception(self, exception: BaseException) -> Any:
        """Called with what broke off a fit, which is raised again afterwards, ``KeyboardInterrupt`` included."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint is to keep of this callback, in tensors and plain values. Default: nothing."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with what :meth:`state_dict` gave, in a run that is resumed."""

    def before_fit(self) -> Any:
        """Called first."""

    def after_fit(self) -> Any:
        """Called last, also after an exception."""

    def before_train(self) -> Any:
        """Called when data and optimizer are ready."""

    def after_train(self) -> Any:
        """Called after the last epoch."""

    def before_running_epoch(self) -> Any:
        """Called before an epoch's first batch."""

    def after_running_epoch(self) -> Any:
        """Called after an epoch's last batch, and its validation."""

    def before_running_batch(self) -> Any:
        """Called before each training batch."""

    def after_running_batch(self) -> Any:
        """Called after each training batch."""

    def before_valid(self) -> Any:
        """Called before each validation."""

    def after_valid(self) -> Any:
        """Called after each validation, when its figures are there."""

    def before_test(self) -> Any:
        """Called before each test."""

    def after_test(self) -> Any:
        """Called after each test, when its figures are there."""
