"""A run that is told to end by SIGTERM saves where it is, says that it did not get through, and goes on from there."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import Callback

from tests.runner.exact_runs import Lines, assert_equal, train

ROOT = Path(__file__).parents[2]


class Terminate(Callback):
    """Sends the signal to its own process in the step of a batch, or its validation; counted over all epochs from 1."""

    def __init__(self, batch, hook):
        self.batch = batch
        setattr(self, hook, self.arrive)

    def arrive(self, trainer, *args):
        if trainer.fit_loop.epoch_loop.batch_progress.total.ready == self.batch:
            os.kill(os.getpid(), signal.SIGTERM)


STEP, VALIDATION = "on_before_backward", "on_validation_batch_start"


# In the middle of an epoch; at its end, before and during its validation; in the middle of an accumulation window.
@pytest.mark.contract("design-7", "002-18", "002-5")
@pytest.mark.parametrize(
    ("kind", "batch", "hook", "file"),
    [
        ("cached", 14, STEP, "epoch=1-step=14.ckpt"),
        ("uncached", 14, STEP, "epoch=1-step=14.ckpt"),
        ("cached", 10, STEP, "epoch=1-step=10.ckpt"),
        ("plain", 10, VALIDATION, "epoch=1-step=10.ckpt"),
        ("cached accumulation", 14, STEP, "epoch=1-step=5.ckpt"),
        ("accumulation", 14, STEP, "epoch=1-step=5.ckpt"),
        ("workers", 14, STEP, "epoch=1-step=14.ckpt"),
        ("updating", 14, STEP, "epoch=1-step=5.ckpt"),
    ],
)
def test_design_7_sigterm_is_saved_at_the_next_exact_place(kind, batch, hook, file, tmp_path):
    whole, lines = train(kind, tmp_path / "whole"), Lines()
    before = signal.getsignal(signal.SIGTERM)
    # No save is due but at the end of epochs.
    words = {"checkpoint": {}, "lines": lines}
    train(kind, tmp_path, callbacks=[Terminate(batch, hook)], expect=SystemExit, **words)
    assert signal.getsignal(signal.SIGTERM) is before
    assert file in {one.name for one in (tmp_path / "checkpoints").iterdir()}
    logged = dict(lines.figures)
    model, _ = train(kind, tmp_path, resume_from="auto", **words)
    assert_equal(whole, (model, lines.figures))
    assert logged  # of the first part, which the second did not repeat


@pytest.mark.contract("002-5")
@pytest.mark.parametrize("as_json", [False, True])
def test_002_5_the_command_says_that_it_was_ended_and_that_it_can_go_on(as_json, tmp_path):
    rows = [{"item": f"{label} {i}", "group": label} for label in ("shoes", "hats") for i in range(8)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = {
        "run_dir": str(tmp_path / "run"),
        "data": {"kind": "groups", "train": str(tmp_path / "train.jsonl")},
        "encoders": {"type": "NgramEncoder", "embedding_size": 8},
        "loss": {"type": "SupConLoss", "temperature": 0.2},
        "training": {"epochs": 100_000, "batch_size": 8, "device": "cpu"},
    }
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    command = [sys.executable, "-m", "simtrain.cli", "train", str(tmp_path / "job.yaml"), *["--json"] * as_json]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert out == ""
    assert err.splitlines()[-1] == "simtrain: ended by SIGTERM"
    assert "Traceback" not in err
