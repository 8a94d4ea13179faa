"""Commands that are killed with SIGKILL and called again end as if nobody had touched them."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "simtrain.cli"]
DEADLINE = 120


def write_job(folder):
    dice, labels = random.Random(3), ("shoe", "hat", "bag", "coat", "scarf", "belt")
    words = ("red", "blue", "old", "new", "wool", "silk")
    rows = [{"item": f"{dice.choice(words)} {label} {i}", "group": label} for label in labels for i in range(30)]
    dice.shuffle(rows)
    for name, part in (("train", rows[:120]), ("test", rows[120:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    job = {
        "data": {"kind": "groups", "train": "train.jsonl", "valid": "test.jsonl", "test": "test.jsonl"},
        "encoders": {"type": "NgramEncoder", "embedding_size": 32, "trainable": False},
        "head": {"type": "SkipConnectionHead", "dropout": 0.2},
        "loss": {"type": "SupConLoss", "temperature": 0.2},
        "cache": {"cache_type": "cpu"},
        "training": {"epochs": 80, "batch_size": 8, "device": "cpu"},
        "checkpoint": {"step_interval": 7},
        "log": {"csv": True},
    }
    (folder / "job.yaml").write_text(json.dumps(job))


def start(folder, *words):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*COMMAND, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def ended(process):
    """What a command that got through has printed, without the times it took and where it saved."""
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, err
    return [line for line in out.splitlines() if not line.endswith(" s") and not line.startswith("saved to")]


def wait_for(condition, process):
    until = time.monotonic() + DEADLINE
    while not condition() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)


def weights_of(run):
    (parts,) = (run / "model").glob("parts-*")
    return {str(file.relative_to(parts)): file.read_bytes() for file in parts.rglob("*.*")}


def saved_at(run):
    file = run / "checkpoints" / "last.ckpt"
    return file.stat().st_mtime_ns if file.exists() else None


@pytest.mark.slow
@pytest.mark.contract("design-7", "002-18")
def test_design_7_a_training_that_was_killed_twice_ends_with_the_same_weights_rows_and_words(tmp_path):
    write_job(tmp_path)
    words, run, dice = ["train", "job.yaml"], tmp_path / "left", random.Random(7)
    printed = ended(start(tmp_path, *words, "run_dir=whole"))
    for resume in ([], ["training.resume_from=auto"]):
        process, before = start(tmp_path, *words, "run_dir=left", *resume), saved_at(run)
        wait_for(lambda before=before: saved_at(run) != before, process)
        time.sleep(dice.uniform(0, 0.3))
        process.kill()
        process.communicate()
        assert process.returncode == -9
        assert not (run / "model").exists()
    assert ended(start(tmp_path, *words, "run_dir=left", "training.resume_from=auto")) == printed
    assert any("mrr" in line for line in printed)
    whole, left = weights_of(tmp_path / "whole"), weights_of(run)
    assert "head/weights.safetensors" in whole
    assert whole == left
    rows = [(folder / "csv" / "metrics.csv").read_bytes() for folder in (tmp_path / "whole", run)]
    assert rows[0] == rows[1]
    assert rows[0].count(b"\n") > 80 * 15
    figures = [json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path / "whole", run)]
    assert all(figures[0][stage] == figures[1][stage] for stage in ("before", "after"))


@pytest.mark.slow
def test_a_sweep_that_was_killed_finds_the_same_best_config(tmp_path):
    write_job(tmp_path)
    job = json.loads((tmp_path / "job.yaml").read_text())
    job["training"]["epochs"] = 20
    space = {"optimizer.lr": {"type": "loguniform", "low": 1e-4, "high": 1e-1}}
    (tmp_path / "sweep.yaml").write_text(json.dumps({"config": job, "trials": 3, "param_space": space, "pruner": None}))
    whole = json.loads("\n".join(ended(start(tmp_path, "sweep", "sweep.yaml", "run_dir=whole", "--json"))))
    process = start(tmp_path, "sweep", "sweep.yaml", "run_dir=left")
    wait_for(lambda: len(list((tmp_path / "left").rglob("last.ckpt"))) == 2, process)
    process.kill()
    process.communicate()
    assert process.returncode == -9
    left = json.loads("\n".join(ended(start(tmp_path, "sweep", "sweep.yaml", "run_dir=left", "--json"))))
    tried = [
        [(one["params"], one["value"]) for one in result["trials"] if one["state"] == "complete"]
        for result in (whole, left)
    ]
    assert len(tried[0]) == 3
    assert tried[0] == tried[1]
    assert [one["state"] for one in left["trials"]].count("cut off") == 1
