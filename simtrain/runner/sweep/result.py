"""What a sweep came to: its trials, and the best of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from simtrain.evaluation.table import markdown_table

BEST_CONFIG = "best.yaml"


@dataclass(frozen=True)
class TrialResult:
    """What one trial came to.

    Attributes:
        number: Its number.
        state: ``complete``, ``pruned``, ``failed``, ``cut off`` (its process died; it was tried again) or ``running``.
        value: The figure of its last validation; None without one.
        params: Key → value.
        run_dir: Its run folder.
        validations: How many validations it had.
        seconds: How long it took; None where that is not known.
        fault: Why it failed; empty if it did not.
    """

    number: int
    state: str
    value: float | None
    params: dict[str, Any]
    run_dir: str
    validations: int = 0
    seconds: float | None = None
    fault: str = ""


@dataclass(frozen=True)
class SweepResult:
    """What a sweep came to.

    Attributes:
        run_dir: Its folder.
        metric: The figure it goes by.
        mode: ``min`` or ``max``.
        trials: All trials, in order.
        best: The best of those that are complete; None without one.
    """

    run_dir: Path
    metric: str
    mode: str
    trials: list[TrialResult] = field(repr=False)
    best: TrialResult | None

    @property
    def best_config(self) -> Path | None:
        """File of the job's config with the best values; None where no trial went well."""
        return None if self.best is None else self.run_dir / BEST_CONFIG

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "run_dir": str(self.run_dir),
            "metric": self.metric,
            "mode": self.mode,
            "best": self.best and asdict(self.best),
            "best_config": self.best and str(self.best_config),
            "trials": [asdict(trial) for trial in self.trials],
        }

    def table(self) -> str:
        """Markdown table with a line for each trial, the best first."""
        keys = list(dict.fromkeys(key for trial in self.trials for key in trial.params))
        order = sorted(self.trials, key=self._place)
        rows = [[figure(one) for one in (trial.number, trial.state, trial.value, trial.validations)] for trial in order]
        for row, trial in zip(rows, order, strict=True):
            row += [figure(trial.params.get(key)) for key in keys]
        return markdown_table(["trial", "state", self.metric, "validations", *keys], rows)

    def _place(self, trial: TrialResult) -> tuple[int, float, int]:
        sign = 1 if self.mode == "min" else -1
        rank = ("complete", "pruned").index(trial.state) if trial.state in ("complete", "pruned") else 2
        return rank, sign * (trial.value if trial.value is not None else 0.0), trial.number


def figure(value: Any) -> str:
    """A value as a cell of a table.

    Example:
        >>> figure(0.123456789), figure(None), figure([1, 2])
        ('0.12346', '-', '[1, 2]')
    """
    return "-" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)
