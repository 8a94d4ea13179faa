"""Running a sweep: one job after the other, the best config written out."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from simtrain.errors import SimtrainError
from simtrain.evaluation.text_files import draft
from simtrain.runner.job import fit
from simtrain.runner.sweep.result import BEST_CONFIG, SweepResult, TrialResult, figure
from simtrain.runner.sweep.study import Study
from simtrain.runner.sweep.sweep_config import Sweep, load_sweep
from simtrain.runner.sweep.trial_reporter import TrialReporter

# What of a trial's folder takes space.
_LARGE = ("model", "checkpoints")
# So many trials that fail one after the other, with none that went well, are not bad luck.
_HOPELESS = 3

logger = logging.getLogger("simtrain")


def sweep(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> SweepResult:
    """Run a job with other settings until all trials are done, and write the best config.

    Each trial has a run folder of its own, and does not look at the test data. The figure of each validation is
    reported; a trial that does worse than others did at that place is ended. Called again with the same folder,
    after a kill or with more trials, the sweep goes on. Several processes may work on one folder.

    Args:
        source: The sweep's file, or the same as a mapping; see :class:`SweepConfig`.
        overrides: ``key=value`` words on top of it, or of its job.

    Returns:
        All trials, and the best.

    Raises:
        ConfigError: A key or value is wrong, or the folder holds another sweep.
        MissingExtraError: Optuna is not installed.
        SimtrainError: Every trial failed; of the last one.
    """
    asked = load_sweep(source, overrides)
    study = Study(asked)
    failed = 0
    while True:
        with study.next_trial() as trial:
            if trial is None:
                break
            error = _run_trial(asked, study, trial)
        failed = failed + 1 if error else 0
        result = _result(asked, study)
        _tell_progress(result, study.total, trial.number)
        _write_best(asked, result)
        _tidy_up(asked, result)
        if error is not None and failed >= min(_HOPELESS, study.total) and result.best is None:
            raise error
    result = _result(asked, study)
    _write_best(asked, result)
    return result


def _run_trial(asked: Sweep, study: Study, trial: Any) -> Exception | None:
    start = time.perf_counter()
    reporter = TrialReporter(trial, asked.cfg.metric)
    error: Exception | None = None
    state = "COMPLETE"
    try:
        cfg = asked.job_config(asked.space.suggest(trial))
        cfg.run_dir, cfg.data.test = str(study.trial_folder(trial.number)), None
        fit(cfg, callbacks=[reporter])
        state = "PRUNED" if reporter.pruned else "COMPLETE"
    except (SimtrainError, torch.OutOfMemoryError) as caught:
        # Values that do not go together, or are too large; anything else is no matter of this trial.
        error, state = caught, "FAIL"
    notes: dict[str, Any] = {"seconds": round(time.perf_counter() - start, 3), "validations": reporter.validations}
    if error is not None:
        notes["fault"] = str(error)
    study.tell(trial, reporter.value, state, **notes)
    return error


def _result(asked: Sweep, study: Study) -> SweepResult:
    trials = [_trial_result(asked, study, one) for one in study.trials("COMPLETE", "PRUNED", "FAIL", "RUNNING")]
    complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    choose = min if asked.cfg.mode == "min" else max
    best = choose(complete, key=lambda trial: trial.value or 0.0) if complete else None
    return SweepResult(asked.folder, asked.cfg.metric, asked.cfg.mode, trials, best)


def _trial_result(asked: Sweep, study: Study, trial: Any) -> TrialResult:
    states = {"COMPLETE": "complete", "PRUNED": "pruned", "RUNNING": "running"}
    notes = trial.user_attrs
    failed = "failed" if "fault" in notes else "cut off"
    value = trial.value if trial.value is not None else trial.intermediate_values.get(trial.last_step)
    return TrialResult(
        number=trial.number,
        state=states.get(trial.state.name, failed),
        value=value,
        params=asked.space.decoded(trial.params),
        run_dir=str(study.trial_folder(trial.number)),
        validations=notes.get("validations", len(trial.intermediate_values)),
        seconds=notes.get("seconds"),
        fault=notes.get("fault", ""),
    )


def _tell_progress(result: SweepResult, total: int, number: int) -> None:
    trial = next(one for one in result.trials if one.number == number)
    done = sum(one.state in ("complete", "pruned", "failed") for one in result.trials)
    params = ", ".join(f"{key}={figure(value)}" for key, value in trial.params.items())
    best = "" if result.best is None else f"; best: {figure(result.best.value)} (trial {result.best.number})"
    what = trial.fault or f"{result.metric} {figure(trial.value)}"
    logger.info("%d of %d: trial %d %s, %s, %s%s", done, total, number, trial.state, what, params, best)


def _write_best(asked: Sweep, result: SweepResult) -> None:
    if result.best is None:
        return
    cfg = asked.job_config(result.best.params)
    cfg.run_dir = str(asked.folder / "best")
    with draft(asked.folder / BEST_CONFIG) as file:
        file.write(OmegaConf.to_yaml(cfg, resolve=True))


def _tidy_up(asked: Sweep, result: SweepResult) -> None:
    if asked.cfg.keep == "all":
        return
    for trial in result.trials:
        if trial.state in ("complete", "pruned", "failed") and trial != result.best:
            for name in _LARGE:
                shutil.rmtree(Path(trial.run_dir, name), ignore_errors=True)
