"""Figures for Weights & Biases, written offline and read back."""

import json
import time
from contextlib import suppress

import pytest

from simtrain import Runner
from simtrain.errors import ConfigError
from tests.runner.exact_runs import KINDS
from tests.runner.test_run_csv_logger import LeaveAt, Left, fit

wandb = pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path_factory):
    for name, value in {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true", "WANDB_MODE": "offline"}.items():
        monkeypatch.setenv(name, value)
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):  # not those of who runs the tests
        monkeypatch.setenv(name, str(tmp_path_factory.mktemp("wandb")))
    monkeypatch.setenv("WANDB_X_SERVICE_WAIT", "240")  # seconds in which its service starts, on a busy machine


def records(file):
    """What a part of a run is made of. W&B's service writes the end of it a little after the run has finished."""
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    until = time.monotonic() + 60
    while True:
        store, found = DataStore(), []
        store.open_for_scan(str(file))
        with suppress(AssertionError):  # a record that is half written as yet
            while (data := store.scan_data()) is not None:
                found.append(Record())
                found[-1].ParseFromString(data)
        store.close()
        if any(one.WhichOneof("record_type") == "exit" for one in found):
            return found
        assert time.monotonic() < until, f"{file} has no end: {len(found)} records"
        time.sleep(0.05)


def written(folder):
    """For each part of a run, in order: the run's id, and the lines of figures."""
    runs = []
    for file in folder.glob("wandb/offline-run-*/*.wandb"):
        kinds = [(one.WhichOneof("record_type"), one) for one in records(file)]
        items = [one.history.item for kind, one in kinds if kind == "history"]
        lines = [{one.key or one.nested_key[0]: json.loads(one.value_json) for one in line} for line in items]
        (begin,) = [one.run for kind, one in kinds if kind == "run"]
        runs.append((begin.start_time.ToNanoseconds(), begin.run_id, lines))
    return [(run_id, lines) for _, run_id, lines in sorted(runs, key=lambda run: run[0])]


@pytest.mark.contract("002-15", "002-18")
def test_002_15_a_resumed_run_is_one_run_of_weights_and_biases(tmp_path):
    words = {"log": {"csv": False}, "wandb": {"enable": True, "offline": True, "proj_name": "shoes", "tags": ["a"]}}
    with pytest.raises(Left):
        fit("cached", tmp_path, LeaveAt(17), **words)
    runner = fit("cached", tmp_path, resume_from="auto", **words)
    (one, before), (same, after) = written(tmp_path)
    assert one == same == (tmp_path / "wandb-id.txt").read_text().strip()
    assert sum("train_loss" in line for line in before) == 16
    # The checkpoint before batch 17 is of batch 15.
    steps = [line["trainer/global_step"] for line in after if "train_loss" in line]
    assert steps == list(range(15, 30))
    assert sum("validation_loss" in line for line in after) == 2
    assert wandb.run is None  # another run of this process has one of its own
    # What is measured later goes on in the same run; a run that begins anew is another one.
    runner.valid()
    fit("cached", tmp_path, epochs=1, **words)
    ids = [found for found, _ in written(tmp_path)]
    assert ids[:3] == [one] * 3
    assert ids[3] not in (one, "")
    assert len(ids) == 4


def test_a_training_without_the_hooks_of_fit_makes_the_folder(tmp_path):
    make, loader, _, _ = KINDS["cached"]
    folder = tmp_path / "runs" / "one"
    cfg = {"run_dir": str(folder), "checkpoint": {"enable": False}, "wandb": {"enable": True, "offline": True}}
    Runner(make(), 1, loader(), cfg={**cfg, "training": {"device": "cpu"}}).train()
    ((run_id, lines),) = written(folder)
    assert run_id == (folder / "wandb-id.txt").read_text().strip()
    assert sum("train_loss" in line for line in lines) == 10


def test_a_run_without_an_account_is_refused_in_a_sentence_and_moves_nothing(tmp_path, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    wandb.teardown()  # it remembers the mode of the tests before
    fit("cached", tmp_path, epochs=1, log={"csv": False})
    saved = sorted(file.name for file in (tmp_path / "checkpoints").iterdir())
    with pytest.raises(
        ConfigError, match=r"Weights & Biases begins no run: .*api_key.*log in.*or .*wandb\.offline: true"
    ):
        fit("cached", tmp_path, epochs=1, log={"csv": False}, wandb={"enable": True})
    assert sorted(file.name for file in (tmp_path / "checkpoints").iterdir() if "exception" not in file.name) == saved
    # W&B remembers the mode of the first run that a process begins or tries to; a later one has its own.
    folder = tmp_path / "offline"
    fit("cached", folder, epochs=1, log={"csv": False}, wandb={"enable": True, "offline": True})
    assert len(written(folder)) == 1
