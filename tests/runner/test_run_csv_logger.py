"""The file of a run's figures: whole after the run was left and gone on with."""

import csv

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from simtrain import Runner
from tests.runner.exact_runs import KINDS, torch_seeded


class Left(Exception):
    """Breaks a run off."""


class LeaveAt(Callback):
    """Breaks the run off in the step of a batch, counted over all epochs from 1."""

    def __init__(self, batch):
        self.batch = batch

    def on_before_backward(self, trainer, module, loss):
        if trainer.fit_loop.epoch_loop.batch_progress.total.ready == self.batch:
            raise Left


class CompareRows(Callback):
    """Whether the rows that the newest checkpoint counts are on the disk, should the process be killed now."""

    def __init__(self, folder):
        self.folder, self.seen = folder, []

    def on_validation_start(self, trainer, module):
        file = self.folder / "checkpoints" / "last.ckpt"
        if file.exists():
            counted = torch.load(file, weights_only=True)["callbacks"]["KeptRows"]["rows"]
            self.seen.append((counted, len(rows_of(self.folder))))


def rows_of(folder):
    with (folder / "csv" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def fit(kind, folder, *callbacks, resume_from=None, epochs=3, **sections):
    make, loader, valid, settings = KINDS[kind]
    torch_seeded()
    cfg = {
        "run_dir": str(folder),
        "training": {"device": "cpu", "resume_from": resume_from, **settings},
        "checkpoint": {"step_interval": 3},
        "log": {"csv": True},
        **sections,
    }
    runner = Runner(make(), epochs, loader(), valid and valid(), cfg=cfg, callbacks=list(callbacks))
    runner.fit()
    return runner


@pytest.mark.contract("design-7", "002-15", "002-18")
@pytest.mark.parametrize("kind", ["cached", "uncached", "cached accumulation", "plain"])
def test_design_7_the_csv_file_of_a_resumed_run_is_that_of_a_run_that_was_never_left(kind, tmp_path):
    compare = CompareRows(tmp_path / "whole")
    fit(kind, tmp_path / "whole", compare)
    assert len(compare.seen) == 3
    assert all(0 < counted <= found for counted, found in compare.seen)
    # Before a validation has added a column, and after; twice.
    left = tmp_path / "left"
    for batch, resume_from in ((8, None), (17, "auto"), (26, "auto")):
        with pytest.raises(Left):
            fit(kind, left, LeaveAt(batch), resume_from=resume_from)
    fit(kind, left, resume_from="auto")
    assert rows_of(left) == rows_of(tmp_path / "whole")
    assert (left / "csv" / "metrics.csv").read_bytes() == (tmp_path / "whole" / "csv" / "metrics.csv").read_bytes()


def test_a_run_that_is_over_keeps_its_rows_and_one_that_begins_anew_has_a_file_of_its_own(tmp_path):
    fit("cached", tmp_path, epochs=1)
    before = rows_of(tmp_path)
    fit("cached", tmp_path, epochs=1, resume_from="auto")
    assert rows_of(tmp_path) == before
    fit("cached", tmp_path, epochs=1)
    assert rows_of(tmp_path) == before


def test_two_trainings_of_one_runner_are_in_one_file(tmp_path):
    runner = fit("uncached", tmp_path, epochs=1)
    once = len(rows_of(tmp_path))
    runner.fit()
    assert len(rows_of(tmp_path)) == 2 * once
