"""A table of all epochs, when training has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.callbacks import Callback

from simtrain import registry
from simtrain.runner.callbacks.figure_lines import best_row, shown_figures, tell

#: Epochs of a long training that the table shows: so many first and last ones, and the best.
_ENDS = 5


@registry.callbacks.register_module()
class EpochSummary(Callback):
    """Prints the figures of the epochs as a table when training has ended; the best ones are marked.

    Args:
        show: Figure → whether more of it is better: those that are shown; empty: the loss and those of validation.
        aloud: True: on stderr; None: there if it is a terminal, else in the log.

    Attributes:
        rows: Figures of each epoch of this training, in order.

    Example:
        >>> EpochSummary().rows
        []
    """

    def __init__(self, show: Mapping[str, bool] | None = None, aloud: bool | None = None) -> None:
        self.show, self.aloud = dict(show or {}), aloud
        self.rows: list[dict[str, float]] = []
        self._first = 1

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin a table, unless a resumed training goes on with one."""
        if trainer.current_epoch == 0:
            self.rows, self._first = [], 1
        elif not self.rows:
            self._first = trainer.current_epoch + 1

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Keep the epoch's figures."""
        self.rows.append(shown_figures(trainer.callback_metrics, self.show))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Print the table."""
        if trainer.is_global_zero and self.rows:
            tell(as_text(self.table()), self.aloud)

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"rows": self.rows, "first": self._first}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.rows, self._first = list(state_dict["rows"]), state_dict["first"]

    def table(self) -> Any:
        """The table, for rich to print."""
        from rich.table import Table

        names = list(dict.fromkeys(name for row in self.rows for name in row))
        best = {name: best_row(self.rows, name, self.show) for name in names}
        table = Table("epoch", *names, title="epochs")
        before = -1
        for number in _shown_rows(len(self.rows), best.values()):
            if number > before + 1:
                table.add_row(*["…"] * (len(names) + 1))
            cells = [_cell(self.rows[number], name, best[name] == number) for name in names]
            table.add_row(str(self._first + number), *cells)
            before = number
        return table


def as_text(table: Any) -> str:
    """A table of rich's as plain text, as wide as it needs to be."""
    from rich.console import Console

    console = Console(width=10_000, no_color=True)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip()


def _shown_rows(n_rows: int, best: Any) -> Sequence[int]:
    ends = {number for number in range(n_rows) if number < _ENDS or number >= n_rows - _ENDS}
    return sorted(ends | {number for number in best if number is not None})


def _cell(row: Mapping[str, float], name: str, is_best: bool) -> str:
    if name not in row:
        return ""
    return f"{row[name]:.4g}{' *' if is_best else ''}"
