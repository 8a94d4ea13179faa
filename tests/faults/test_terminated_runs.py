"""A run that is told to end by SIGTERM saves where it is, says that it did not get through, and goes on from there."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import Callback

from simtrain import Runner
from simtrain.runner import TestLoop, ValidLoop
from tests.runner.exact_runs import KINDS, Lines, assert_equal, torch_seeded, train

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


class Measured(Callback):
    """A validation of one's own, beside Lightning's; the run is told to end in the middle of one."""

    def __init__(self, terminate_at=None):
        self.terminate_at, self.found = terminate_at, []

    def run(self):
        batches = self.runner.state.trainer.fit_loop.epoch_loop.batch_progress.total.ready
        if batches == self.terminate_at:
            os.kill(os.getpid(), signal.SIGTERM)
        self.found.append(batches)
        return {"own": float(sum(one.sum() for one in self.runner.model.parameters()))}

    def state_dict(self):
        return {"found": list(self.found)}

    def load_state_dict(self, state_dict):
        self.found = list(state_dict["found"])


class Named(ValidLoop):
    def run(self):
        return {f"own_{name}": value for name, value in super().run().items()}


def fit_measured(kind, folder, own, callbacks=(), resume_from=None):
    """Tests are due after each four batches, and after the validation of an epoch."""
    make, loader, valid, settings = KINDS[kind]
    torch_seeded()
    own, lines = own(), Lines()
    triggers = {"test_interval_iter": 4, "test_interval_epoch": 1, "resume_from": resume_from}
    cfg = {"run_dir": str(folder), "training": {"device": "cpu", **settings, **triggers}}
    model, keeping = make(), [one for one in [own] if isinstance(one, Callback)]
    loops = {"test_loop": own} if type(own) is TestLoop else {"valid_loop": own, "test_loop": TestLoop()}
    callbacks = [*callbacks, *keeping]
    loaders = {"train_data_loader": loader(), "valid_data_loader": valid(), "test_data_loader": valid()}
    Runner(model, 3, **loaders, **loops, cfg=cfg, callbacks=callbacks, logger=lines).fit()
    return model, lines.figures, getattr(own, "found", None)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a run that nobody ends comes to; several tests compare with the same one."""
    return functools.cache(lambda kind, own: fit_measured(kind, tmp_path_factory.mktemp("whole"), own))


TEST = "on_test_batch_start"


@pytest.mark.contract("design-7", "002-18", "002-5")
@pytest.mark.parametrize("kind", ["cached", "uncached"])
@pytest.mark.parametrize(
    ("own", "ended", "batch", "hook"),
    [
        (TestLoop, TestLoop, 12, TEST),  # in a test in the middle of an epoch
        (TestLoop, TestLoop, 20, TEST),  # in one at an epoch's end
        (TestLoop, TestLoop, 12, STEP),  # in a batch after which a test is due
        (TestLoop, TestLoop, 10, VALIDATION),  # in a validation before a test
        (Named, Named, 10, VALIDATION),
        (Named, Named, 12, TEST),
        (Measured, lambda: Measured(10), 0, STEP),
        (Measured, Measured, 10, STEP),
    ],
)
def test_design_7_sigterm_waits_for_tests_and_for_validations_of_one_s_own(
    kind, own, ended, batch, hook, undisturbed, tmp_path
):
    whole = undisturbed(kind, own)
    with pytest.raises(SystemExit):
        fit_measured(kind, tmp_path / "left", ended, [Terminate(batch, hook)] if batch else [])
    steps = [int(file.stem.split("=")[-1]) for file in (tmp_path / "left" / "checkpoints").glob("epoch*.ckpt")]
    # After a test in the middle of an epoch nobody asks for the signal until the next batch is done, too.
    assert {batch or 10} <= set(steps) <= {10, 12, 13, 20}
    resumed = fit_measured(kind, tmp_path / "left", own, resume_from="auto")
    assert_equal((whole[0], {}), (resumed[0], {}))
    assert resumed[2] == whole[2]
    assert all(whole[1][key] == value for key, value in resumed[1].items())
    assert {key for key in whole[1] if key[1] >= max(steps)} <= resumed[1].keys()


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
    try:
        while not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + signal.SIGTERM
    assert out == ""
    assert err.splitlines()[-1] == "simtrain: ended by SIGTERM"
    assert "Traceback" not in err
