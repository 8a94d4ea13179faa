"""Which of the checkpoints that were written are kept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class SavedCheckpoint:
    """One checkpoint file.

    Attributes:
        file: Its name.
        epoch: Epochs that were over when it was saved.
        step: Optimizer steps that had been taken.
        scores: Monitored figure → value, as far as there was a new one.
    """

    file: str
    epoch: int
    step: int
    scores: dict[str, float] = field(default_factory=dict)


class SavedCheckpoints:
    """The checkpoints of a run, oldest first.

    Args:
        monitors: Figure → whether more of it is better.
        topk: How many are kept for each figure, the best ones.
        last: How many of the newest are kept beside them; None keeps all.

    Example:
        >>> saved = SavedCheckpoints({"mrr": True}, topk=1, last=1)
        >>> for step, mrr in enumerate([0.5, 0.7, 0.6]):
        ...     outdated = saved.add(SavedCheckpoint(f"{step}.ckpt", 0, step, {"mrr": mrr}))
        >>> saved.best("mrr").file, saved.newest.file, [one.file for one in outdated]
        ('1.ckpt', '2.ckpt', [])
    """

    def __init__(self, monitors: Mapping[str, bool], topk: int, last: int | None) -> None:
        self.monitors, self.topk, self.last = dict(monitors), topk, last
        self._entries: list[SavedCheckpoint] = []

    @property
    def newest(self) -> SavedCheckpoint | None:
        """The one that was added last."""
        return self._entries[-1] if self._entries else None

    def best(self, monitor: str) -> SavedCheckpoint | None:
        """The best one by a figure, of equal ones the first; None where none is kept for being good."""
        return next(iter(self._ranked(monitor, self._entries)), None) if self.topk else None

    def wants(self, scores: Mapping[str, float]) -> bool:
        """Whether a checkpoint with these scores would be among the best."""
        candidate = SavedCheckpoint("", 0, 0, dict(scores))
        return any(candidate in self._ranked(name, [*self._entries, candidate])[: self.topk] for name in self.monitors)

    def add(self, new: SavedCheckpoint) -> list[SavedCheckpoint]:
        """Take one in.

        Returns:
            Those that are no longer kept.
        """
        entries = [one for one in self._entries if one.file != new.file] + [new]
        newest = entries if self.last is None else entries[max(0, len(entries) - self.last) :]
        best = [one for name in self.monitors for one in self._ranked(name, entries)[: self.topk]]
        self._entries = [one for one in entries if one in newest or one in best]
        return [one for one in entries if one not in self._entries]

    def state_dict(self) -> list[dict[str, Any]]:
        """The entries, as plain values."""
        return [asdict(one) for one in self._entries]

    def load_state_dict(self, state: Iterable[Mapping[str, Any]], files: Iterable[str]) -> None:
        """Take over the entries of another run, as far as their files are there.

        Args:
            state: What :meth:`state_dict` gave.
            files: Names of the files that there are.
        """
        present = set(files)
        self._entries = [SavedCheckpoint(**one) for one in state if one["file"] in present]

    def _ranked(self, monitor: str, entries: Iterable[SavedCheckpoint]) -> list[SavedCheckpoint]:
        sign = -1.0 if self.monitors[monitor] else 1.0
        scored = [one for one in entries if not math.isnan(one.scores.get(monitor, math.nan))]
        return sorted(scored, key=lambda one: sign * one.scores[monitor])
