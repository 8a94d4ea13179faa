"""Points for TensorBoard: as the CSV file has them, each once after the run was left and gone on with."""

import math
import os
from collections import defaultdict
from types import SimpleNamespace

import pytest

from simtrain.runner import run_tensorboard_logger
from tests.runner.test_run_csv_logger import LeaveAt, Left, fit, rows_of

pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

CFG = {"tensorboard": True, "csv": True}


def points(folder):
    """Figure → (step, value) in the order in which TensorBoard shows them."""
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def rows_as_points(folder):
    found = defaultdict(list)
    for row in rows_of(folder):
        step = int(row.pop("step"))
        for name, value in row.items():
            if value:
                found[name].append((step, float(value)))
    return found


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name, those in one.items():
        assert [step for step, _ in those] == [step for step, _ in two[name]], name
        # TensorBoard keeps 32 bits.
        assert all(math.isclose(a, b, rel_tol=1e-6) for (_, a), (_, b) in zip(those, two[name], strict=True)), name


@pytest.mark.contract("002-15", "design-7", "002-18")
@pytest.mark.parametrize("kind", ["cached", "uncached", "cached accumulation"])
def test_design_7_tensorboard_shows_each_step_of_a_resumed_run_once(kind, tmp_path):
    fit(kind, tmp_path / "whole", log=CFG)
    whole = points(tmp_path / "whole")
    assert len(whole["train_loss"]) >= 3
    assert len(whole["validation_loss"]) == 3
    assert_same(whole, rows_as_points(tmp_path / "whole"))
    for batch, resume_from in ((8, None), (17, "auto"), (26, "auto")):
        with pytest.raises(Left):
            fit(kind, tmp_path / "left", LeaveAt(batch), resume_from=resume_from, log=CFG)
    fit(kind, tmp_path / "left", resume_from="auto", log=CFG)
    assert len(os.listdir(tmp_path / "left" / "tensorboard")) > 3
    assert_same(points(tmp_path / "left"), whole)


def test_runs_of_one_second_are_shown_in_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(7))
    now, waited = 1000.5, []  # time passes only where it is waited for

    def sleep(seconds):
        nonlocal now
        now += seconds
        waited.append(seconds)

    for module in (event_file_writer, run_tensorboard_logger):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: now, sleep=sleep))
    for value in (1.0, 2.0):
        logger = run_tensorboard_logger.RunTensorBoardLogger(tmp_path / "tensorboard")
        logger.go_on_at(0)
        logger.log_metrics({"loss": value}, step=3)
        logger.finalize("success")
    assert points(tmp_path) == {"loss": [(3, 2.0)]}
    assert waited == [0.5]


def test_a_run_that_begins_anew_hides_the_one_before_and_a_second_training_does_not(tmp_path):
    fit("cached", tmp_path, log=CFG, epochs=2)
    runner = fit("cached", tmp_path, log=CFG, epochs=1)
    assert len(points(tmp_path)["validation_loss"]) == 1
    runner.fit()
    assert len(points(tmp_path)["validation_loss"]) == 2
