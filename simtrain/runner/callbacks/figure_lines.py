"""Figures of a run in words: which are shown, how, and which value was the best."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from simtrain.runner.monitored_figure import greater_is_better


def shown_figures(figures: Mapping[str, Any], wanted: Mapping[str, bool]) -> dict[str, float]:
    """The figures that somebody who waits for a training wants to see.

    Args:
        figures: All figures that are there.
        wanted: Figure → whether more of it is better; empty for the losses, and all of validation.

    Example:
        >>> shown_figures({"train_loss": 0.5, "train_n_active": 3, "recall@1_validation": 0.0}, {})
        {'train_loss': 0.5, 'recall@1_validation': 0.0}
    """
    names = [name for name in wanted if name in figures] if wanted else [name for name in figures if _is_usual(name)]
    return {name: float(figures[name]) for name in names}


def in_words(figures: Mapping[str, float]) -> str:
    """Figures in a line.

    Example:
        >>> in_words({"train_loss": 0.51234, "recall": 0.0})
        'train_loss 0.5123, recall 0'
    """
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())


def tell(text: str, aloud: bool | None) -> None:
    """Say something of a run: on stderr where ``aloud`` is True, or None and there is a terminal; else in the log."""
    if aloud or (aloud is None and sys.stderr.isatty()):
        print(text, file=sys.stderr, flush=True)
    elif aloud is None:
        logging.getLogger("simtrain").info("%s", text)


def best_row(rows: Iterable[Mapping[str, float]], name: str, wanted: Mapping[str, bool]) -> int | None:
    """Number of the row in which a figure was best; None where it never was a number.

    Example:
        >>> best_row([{"loss": 2.0}, {"loss": 1.0}, {}], "loss", {})
        1
    """
    values = [(row[name], number) for number, row in enumerate(rows) if not math.isnan(row.get(name, math.nan))]
    if not values:
        return None
    more = wanted.get(name, greater_is_better(name))
    # Of equal values the first one.
    return (max if more else min)(values, key=lambda one: (one[0], -one[1] if more else one[1]))[1]


def _is_usual(name: str) -> bool:
    return name == "train_loss" or name == "train_skipped_steps" or "validation" in name or "test" in name.split("_")
