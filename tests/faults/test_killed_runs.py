"""A run that is killed at any moment and resumed ends with the bits of one that was not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.faults.kill_runs import MOMENTS
from tests.runner.exact_runs import KINDS

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("kill_runs.py")
FEW = [
    "cached:clock",
    "cached:saving",
    "trained encoder:validation",
    "workers:step",
    "momentum:step",
    "accumulation:step",
    "plain:end",
]


def play(folder, words):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), *words], env=env, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]


def figures(file):
    """What was logged of each step, the latest of it."""
    return {(name, step): value for name, step, value in map(json.loads, file.read_text().splitlines())}


def assert_ended_alike(folder, word):
    kind = word.split(":")[0]
    whole, resumed = folder / "whole" / kind, folder / word / kind
    assert int((resumed / "kills").read_text()) > 0
    states = [torch.load(each / "result.pt", weights_only=True) for each in (whole, resumed)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        other = states[1][name]
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name
    assert figures(whole / "lines.jsonl") == figures(resumed / "lines.jsonl")
    # Nothing half written is left where the last attempt went through.
    assert not list(resumed.rglob("*.tmp-*"))


@pytest.mark.contract("design-7", "002-18")
def test_002_18_a_killed_run_ends_as_if_it_had_not_been_killed(tmp_path):
    play(tmp_path, FEW)
    for word in FEW:
        assert_ended_alike(tmp_path, word)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.contract("design-7", "002-18")
@pytest.mark.parametrize("kind", KINDS)
def test_002_18_every_kind_of_run_survives_kills_at_every_moment(kind, tmp_path):
    words = [f"{kind}:{moment}" for moment in MOMENTS if moment != "validation" or KINDS[kind][2] is not None]
    play(tmp_path, words)
    for word in words:
        assert_ended_alike(tmp_path, word)
