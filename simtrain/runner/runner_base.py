"""The life of a run: each of its points is told to every callback."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from simtrain.errors import ContractError
from simtrain.runner.base_callback import BaseCallBack

logger = logging.getLogger("simtrain")


class RunnerBase:
    """Keeps the callbacks, and hands on to them what happens, in the order of the list.

    Attributes:
        callbacks: The callbacks.
        optimizer: The optimizer of the latest training, or all of them where there are several; None before one.
        scheduler: Likewise its learning-rate schedule; None where there is none.

    Example:
        >>> class Loud(BaseCallBack):
        ...     def before_fit(self):
        ...         print("before")
        >>> runner = RunnerBase()
        >>> runner.register_callbacks([Loud(), None])
        >>> runner.before_fit(), len(runner.callbacks)
        before
        (None, 1)
    """

    #: Kinds of callbacks that are accepted; those that are no :class:`BaseCallBack` are called by a loop.
    callback_kinds: tuple[type, ...] = (BaseCallBack,)

    def __init__(self) -> None:
        self.callbacks: list[Any] = []
        self.optimizer: Any = None
        self.scheduler: Any = None

    def register_callbacks(self, callbacks: Iterable[Any] | Any) -> None:
        """Take these callbacks in place of all others, and call ``on_register`` of each; None is passed over.

        Raises:
            ContractError: One is no callback; the list is left as it was.
        """
        self._check_callbacks(callbacks)
        self.callbacks = []
        self.extend_callbacks(callbacks)

    def extend_callbacks(self, callbacks: Iterable[Any] | Any) -> None:
        """Take these callbacks beside those that are there, and call ``on_register`` of each; None is passed over.

        Raises:
            ContractError: One is no callback; the list is left as it was.
        """
        added = self._check_callbacks(callbacks)
        self.callbacks = [*self.callbacks, *added]
        for callback in added:
            if isinstance(callback, BaseCallBack):
                callback.runner = self  # type: ignore[assignment]
                callback.on_register()

    def unregister_callbacks(self) -> None:
        """Let go of all callbacks."""
        self.callbacks = []

    def on_exception(self, exception: BaseException) -> None:
        """Tell every callback what broke off the run; what a callback itself breaks on then is logged alone."""
        self._tell_all("on_exception", exception)

    def before_fit(self) -> None:
        """Tell every callback."""
        self._tell("before_fit")

    def after_fit(self) -> None:
        """Tell every callback."""
        self._tell("after_fit")

    def before_train(self) -> None:
        """Tell every callback."""
        self._tell("before_train")

    def after_train(self) -> None:
        """Tell every callback."""
        self._tell("after_train")

    def before_running_epoch(self) -> None:
        """Tell every callback."""
        self._tell("before_running_epoch")

    def after_running_epoch(self) -> None:
        """Tell every callback."""
        self._tell("after_running_epoch")

    def before_running_batch(self) -> None:
        """Tell every callback."""
        self._tell("before_running_batch")

    def after_running_batch(self) -> None:
        """Tell every callback."""
        self._tell("after_running_batch")

    def before_valid(self) -> None:
        """Tell every callback."""
        self._tell("before_valid")

    def after_valid(self) -> None:
        """Tell every callback."""
        self._tell("after_valid")

    def before_test(self) -> None:
        """Tell every callback."""
        self._tell("before_test")

    def after_test(self) -> None:
        """Tell every callback."""
        self._tell("after_test")

    @property
    def has_batch_hooks(self) -> bool:
        """Whether anything is to be called before or after each batch."""
        parts = [(self, RunnerBase), *((callback, BaseCallBack) for callback in self._own_kind())]
        words = ("before_running_batch", "after_running_batch")
        # Of the object, as it is called: a hook may have been set on it alone.
        return any(
            getattr(getattr(part, word), "__func__", None) is not getattr(base, word)
            for part, base in parts
            for word in words
        )

    def _tell(self, word: str) -> None:
        for callback in self._own_kind():
            getattr(callback, word)()

    def _tell_all(self, word: str, *args: Any) -> None:
        # While an exception is on its way nothing may take its place, and no callback's failure costs the others.
        for callback in self._own_kind():
            try:
                getattr(callback, word)(*args)
            except Exception:
                logger.exception("%s.%s failed, after the run had", type(callback).__name__, word)

    def _own_kind(self) -> list[BaseCallBack]:
        return [callback for callback in self.callbacks if isinstance(callback, BaseCallBack)]

    def _check_callbacks(self, callbacks: Iterable[Any] | Any) -> list[Any]:
        listed = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
        given = [callback for callback in listed if callback is not None]
        for callback in given:
            if not isinstance(callback, self.callback_kinds):
                raise ContractError(_no_callback(callback, self.callback_kinds))
        return given


def _no_callback(given: Any, kinds: tuple[type, ...]) -> str:
    accepted = " or ".join(f"a {kind.__module__.split('.')[0]} {kind.__name__}" for kind in kinds)
    named, hint = type(given).__name__, ""
    if isinstance(given, type):
        named, hint = given.__name__, "; give an object of the class, not the class itself"
    return f"a callback should be {accepted}, got {named}{hint}"
