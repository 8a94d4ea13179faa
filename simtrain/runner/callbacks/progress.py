"""How far a training is: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from lightning.pytorch.callbacks import Callback

from simtrain import registry
from simtrain.runner.callbacks.figure_lines import in_words, shown_figures, tell

#: Drawings a second. Rich draws in a thread of its own, which reads the trainer's counts: a step does nothing for it.
_REDRAWS = 5


class _ProgressLines(Callback):
    """Tells how far a training is, after each epoch, on stderr; see :class:`RunProgress`.

    Args:
        show: Figure → whether more of it is better; empty: the loss and those of validation.
        every_n_epochs: Epochs from one line to the next; the last epoch always has one.
        aloud: Where there is no terminal, True writes lines to stderr, None to the log.
    """

    def __init__(
        self, show: Mapping[str, bool] | None = None, every_n_epochs: int = 1, aloud: bool | None = None
    ) -> None:
        self.show, self.every_n_epochs, self.aloud = dict(show or {}), every_n_epochs, aloud
        self._bar: Any = None
        self._start = 0.0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock, and the bar on a terminal."""
        self._start = time.perf_counter()
        self._open(trainer)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """The bar of a validation that is no part of a training."""
        self._open(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Show the fresh figures in the bar."""
        self._show_in_bar(trainer)
        if trainer.state.fn != "fit":
            self._close()

    on_test_start, on_test_end = on_validation_start, on_validation_end

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the epoch's line, where there is no bar."""
        self._show_in_bar(trainer)
        epoch = trainer.current_epoch + 1
        is_due = epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs or trainer.should_stop
        if self._bar is None and is_due:
            self._write(trainer, f"epoch {epoch}/{trainer.max_epochs}")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Take the bar away."""
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Take the bar away."""
        self._close()

    def _open(self, trainer: Any) -> None:
        if self._bar is None and trainer.is_global_zero and sys.stderr.isatty():
            self._bar = _bar(trainer)
            self._bar.start()

    def _show_in_bar(self, trainer: Any) -> None:
        if self._bar is not None:
            figures = in_words(shown_figures(trainer.callback_metrics, self.show))
            self._bar.update(self._bar.task_ids[0], figures=figures)

    def _write(self, trainer: Any, place: str) -> None:
        if trainer.is_global_zero:
            took = timedelta(seconds=round(time.perf_counter() - self._start))
            figures = in_words(shown_figures(trainer.callback_metrics, self.show))
            tell(f"{place}, {took}: {figures}", self.aloud)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class _BatchProgressLines(_ProgressLines):
    """Shows the figures in the middle of epochs, too: apart, since hooks of batches cost a fast loop its speed."""

    def __init__(
        self, show: Mapping[str, bool] | None, every_n_epochs: int, aloud: bool | None, every_n_batches: int
    ) -> None:
        super().__init__(show, every_n_epochs, aloud)
        self.every_n_batches = every_n_batches

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Show the figures, where it is time."""
        if (batch_idx + 1) % self.every_n_batches:
            return
        self._show_in_bar(trainer)
        if self._bar is None:
            self._write(trainer, f"epoch {trainer.current_epoch + 1}, batch {batch_idx + 1}")


@registry.callbacks.register_module("RunProgress")
def run_progress(
    show: Mapping[str, bool] | None = None,
    every_n_epochs: int = 1,
    every_n_batches: int | None = None,
    aloud: bool | None = None,
) -> Callback:
    """A callback that shows how far a run is: a bar where stderr is a terminal, lines elsewhere.

    Args:
        show: Figure → whether more of it is better: those that are shown; empty: the loss and those of validation.
        every_n_epochs: Where there is no terminal: epochs from one line to the next.
        every_n_batches: Batches after which figures are shown in the middle of an epoch; None for its end only.
        aloud: Where there is no terminal, True writes lines to stderr, None to the log.

    Example:
        >>> run_progress(every_n_epochs=5).every_n_epochs
        5
    """
    if every_n_batches is None:
        return _ProgressLines(show, every_n_epochs, aloud)
    return _BatchProgressLines(show, every_n_epochs, aloud, every_n_batches)


def _bar(trainer: Any) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    class Live(Progress):
        def get_renderables(self) -> Any:
            # Called by the drawing thread, and once before there is anything to draw.
            for task in self.task_ids:
                place, done, total = _place(trainer)
                self.update(task, description=place, completed=done, total=total)
            return super().get_renderables()

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    figures = TextColumn("{task.fields[figures]}")
    bar = Live(*columns, figures, console=Console(stderr=True), refresh_per_second=_REDRAWS)
    bar.add_task("", total=None, figures="")
    return bar


def _place(trainer: Any) -> tuple[str, int, float | int | None]:
    """What a trainer is at, the batches of it that are done, and how many there are; None where nobody knows."""
    fits = trainer.state.fn == "fit"
    epoch = f"epoch {min(trainer.current_epoch + 1, trainer.max_epochs)}/{trainer.max_epochs}" if fits else ""
    if fits and trainer.training:
        loop, total = trainer.fit_loop.epoch_loop, trainer.fit_loop.max_batches
    elif trainer.testing:
        loop, epoch = trainer.test_loop, f"{epoch} test".strip()
        total = sum(loop._max_batches)
    else:
        loop, epoch = (
            trainer.fit_loop.epoch_loop.val_loop if fits else trainer.validate_loop,
            f"{epoch} validation".strip(),
        )
        total = sum(loop._max_batches)
    return epoch, loop.batch_progress.current.ready, None if math.isinf(total) else total
