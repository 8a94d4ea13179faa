"""A sweep whose process is killed in the middle of a trial goes on as if nothing had happened."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from simtrain.runner.sweep import sweep

# A process of its own, which lives until it is killed: its second trial waits for that after an epoch.
RUN = """
import sys, time
from simtrain.runner.sweep import trials
from simtrain.runner.sweep.trial_reporter import TrialReporter

class Waiting(TrialReporter):
    def on_validation_end(self, trainer, pl_module):
        super().on_validation_end(trainer, pl_module)
        if self._trial.number == 1:
            print("in the middle", flush=True)
            time.sleep(600)

trials.TrialReporter = Waiting
trials.sweep(sys.argv[1])
"""


@pytest.fixture
def file(tmp_path):
    rows = [{"item": f"{label} {i}", "group": label} for label in ("shoes", "hats", "bags", "caps") for i in range(4)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = {
        "data": {"kind": "groups", "train": str(tmp_path / "train.jsonl"), "valid": str(tmp_path / "train.jsonl")},
        "encoders": {"type": "NgramEncoder", "embedding_size": 8},
        "head": {"type": "EmptyHead"},
        "loss": {"type": "SupConLoss", "temperature": 0.2},
        "training": {"epochs": 2, "batch_size": 8, "device": "cpu"},
    }
    space = {
        "optimizer.lr": {"type": "loguniform", "low": 1e-4, "high": 1e-1},
        "loss.temperature": {"type": "choice", "values": [0.1, 0.3]},
    }
    return {"config": job, "trials": 3, "param_space": space, "pruner": None, "run_dir": str(tmp_path / "sweep")}


def start(file, tmp_path):
    (tmp_path / "sweep.yaml").write_text(json.dumps(file))
    process = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path / "sweep.yaml")], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"in the middle\n"
    return process


def tried(result):
    return [(trial.params, trial.value) for trial in result.trials if trial.state == "complete"]


@pytest.mark.slow
def test_a_killed_sweep_tries_the_cut_off_values_again_and_ends_where_an_uninterrupted_one_does(file, tmp_path):
    with start(file, tmp_path) as process:
        process.kill()
    resumed = sweep(file)
    whole = sweep({**file, "run_dir": str(tmp_path / "whole")})
    assert [trial.state for trial in resumed.trials] == ["complete", "cut off", "complete", "complete"]
    assert resumed.trials[1].params == resumed.trials[2].params
    assert tried(resumed) == tried(whole)
    assert Path(resumed.best_config).read_text().replace("/sweep/", "/whole/") == Path(whole.best_config).read_text()


@pytest.mark.slow
def test_two_processes_share_a_sweep_and_leave_each_other_s_trials_alone(file, tmp_path):
    with start(file, tmp_path) as process:
        try:
            meanwhile = sweep(file)
        finally:
            process.kill()
    assert [trial.state for trial in meanwhile.trials] == ["complete", "running", "complete"]
    after = sweep(file)
    assert [trial.state for trial in after.trials] == ["complete", "cut off", "complete", "complete"]
