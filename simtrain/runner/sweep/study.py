"""Optuna's side of a sweep: where trials are kept, what is tried next, which trials were cut off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from simtrain.config.nodes import plain
from simtrain.errors import ConfigError, import_extra
from simtrain.evaluation.text_files import draft
from simtrain.registry import Registry
from simtrain.runner.job import check_folder
from simtrain.runner.sweep.sweep_config import Sweep

DATABASE, IDENTITY, LOCK = "study.db", "sweep.json", "sweep.lock"
_PRUNERS = {
    "median": "MedianPruner",
    "asha": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
    "percentile": "PercentilePruner",
    "threshold": "ThresholdPruner",
}


class Study:
    """The trials of a sweep, those that are done and those to come.

    Several processes may work on one sweep: each takes a trial at a time, and holds a lock on it for as long as it
    lives. A trial whose process died is tried again, with the same values.

    Args:
        sweep: The sweep.

    Raises:
        ConfigError: The folder holds another sweep, or the pruner is described wrongly.
        MissingExtraError: Optuna is not installed.
    """

    def __init__(self, sweep: Sweep) -> None:
        self._optuna: Any = import_extra("optuna", "sweep")
        self._sweep = sweep
        pruner = _pruner(self._optuna, sweep.cfg.pruner)
        check_folder(sweep.folder)
        sweep.folder.mkdir(parents=True, exist_ok=True)
        self._optuna.logging.set_verbosity(self._optuna.logging.ERROR)
        with self._lock():
            self._identify()
            self.study: Any = self._optuna.create_study(
                storage=sweep.cfg.storage or f"sqlite:///{(sweep.folder / DATABASE).absolute()}",
                study_name=sweep.folder.name,
                direction={"min": "minimize", "max": "maximize"}[sweep.cfg.mode],
                pruner=pruner,
                load_if_exists=True,
            )
            self._enqueue_grid()

    @property
    def total(self) -> int:
        """How many trials there are to be."""
        points, trials = len(self._sweep.space.grid_points()), self._sweep.cfg.trials
        return max(points, 1) * (trials or (1 if points else 20))

    def trials(self, *states: str) -> list[Any]:
        """The trials in these states (``COMPLETE``, ``PRUNED``, ``FAIL``, ``RUNNING``, ``WAITING``)."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state.name in states]

    @contextmanager
    def next_trial(self) -> Iterator[Any]:
        """Take the next trial, and hold its lock meanwhile.

        Yields:
            The trial; None where there are as many as there are to be.
        """
        with self._lock():
            self._retry_cut_off()
            if self._n_begun() >= self.total:
                trial = None
            else:
                self.study.sampler = self._sampler()
                trial = self.study.ask()
                held = self._trial_lock(trial.number)
                held.acquire()
        if trial is None:
            yield None
            return
        try:
            yield trial
        finally:
            held.release()

    def tell(self, trial: Any, value: float | None, state: str, **notes: Any) -> None:
        """Keep what a trial came to.

        Args:
            trial: The trial.
            value: Its figure; None for none.
            state: ``COMPLETE``, ``PRUNED`` or ``FAIL``.
            **notes: What to keep beside it, as JSON values.
        """
        for name, note in notes.items():
            trial.set_user_attr(name, note)
        states = self._optuna.trial.TrialState
        self.study.tell(trial, value if state == "COMPLETE" else None, state=states[state])

    def trial_folder(self, number: int) -> Path:
        """The run folder of a trial."""
        return self._sweep.folder / "trials" / f"{number:04d}"

    def _lock(self) -> FileLock:
        return FileLock(self._sweep.folder / LOCK)

    def _trial_lock(self, number: int) -> FileLock:
        folder = self.trial_folder(number)
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / "trial.lock")

    def _identify(self) -> None:
        file, identity = self._sweep.folder / IDENTITY, self._sweep.identity()
        if file.exists():
            _check_same(self._sweep.folder, json.loads(file.read_text()), json.loads(json.dumps(identity)))
            return
        if any(path.name != LOCK for path in self._sweep.folder.iterdir()):
            raise ConfigError(
                f"{str(self._sweep.folder)!r} holds something else; give the sweep a folder of its own with run_dir=…"
            )
        with draft(file) as opened:
            opened.write(json.dumps(identity, indent=2) + "\n")

    def _enqueue_grid(self) -> None:
        points = self._sweep.space.grid_points()
        if not points:
            return
        repeats = self._sweep.cfg.trials or 1
        known = [trial.user_attrs.get("point") for trial in self.study.get_trials(deepcopy=False)]
        for place in range(len(points) * repeats):
            if place not in known:
                self.study.enqueue_trial(points[place % len(points)], user_attrs={"point": place})

    def _retry_cut_off(self) -> None:
        for trial in self.trials("RUNNING"):
            lock = self._trial_lock(trial.number)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue  # another process is at it
            with lock:
                notes = {"point": trial.user_attrs["point"]} if "point" in trial.user_attrs else {}
                self.study.enqueue_trial(trial.params, user_attrs={"retry_of": trial.number, **notes})
                self.study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)

    def _n_begun(self) -> int:
        # One that was cut off and the one that takes its place count as one.
        retries = [trial for trial in self.study.get_trials(deepcopy=False) if "retry_of" in trial.user_attrs]
        return len(self.trials("COMPLETE", "PRUNED", "FAIL", "RUNNING")) - len(retries)

    def _sampler(self) -> Any:
        # Seeded anew for each trial: a sweep that goes on after a kill draws what it would have drawn. Trials that
        # failed and those of other processes count, or their settings would be drawn again.
        seed = (self._sweep.cfg.seed + self._n_begun()) % 2**32
        samplers = self._optuna.samplers
        if self._sweep.cfg.sampler == "random":
            return samplers.RandomSampler(seed=seed)
        return samplers.TPESampler(seed=seed, constant_liar=False)


def _pruner(optuna: Any, cfg: DictConfig | None) -> Any:
    if cfg is None:
        return optuna.pruners.NopPruner()
    pruners = Registry("pruner")
    for name, class_name in _PRUNERS.items():
        pruners.register_module(name)(getattr(optuna.pruners, class_name))
    return pruners.build(plain(cfg))


def _check_same(folder: Path, former: dict[str, Any], now: dict[str, Any]) -> None:
    for key, value in now.items():
        if former.get(key) != value:
            raise ConfigError(
                f"{str(folder)!r} holds a sweep with {key} {former.get(key)!r}, and not {value!r}; their trials "
                f"do not compare: give this sweep a folder of its own with run_dir=…"
            )
