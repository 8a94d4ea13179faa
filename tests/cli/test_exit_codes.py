"""0 done, 1 failed, 2 bad input, 130 interrupted; stderr says what."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "simtrain.cli"]
JOB = {
    "run_dir": "run",
    "data": {"kind": "pairs", "train": "pairs.jsonl"},
    "encoders": {"type": "NgramEncoder", "embedding_size": 8},
    "loss": {"type": "MultipleNegativesRankingLoss"},
    "training": {"epochs": 100_000, "batch_size": 2, "device": "cpu"},
}


@pytest.fixture
def folder(tmp_path):
    rows = [{"query": f"question {i}", "document": f"answer {i}"} for i in range(4)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "job.yaml").write_text(json.dumps(JOB))
    return tmp_path


def run(folder, *words):
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, cwd=folder, check=False)


# Tests that run in the background of a script may pass on that Ctrl+C is ignored.
INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from simtrain.cli import main
main()
"""


def test_an_interrupted_run_ends_with_130_and_one_line(folder):
    command = [sys.executable, "-c", INTERRUPTIBLE, "train", "job.yaml"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while not Path(folder, "run", "checkpoints", "last.ckpt").exists():  # it is in the middle of training
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "simtrain: interrupted"
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--version"], 0, ""),
        (
            ["config", "show", "job.yaml", "training.epochs=0"],
            2,
            "simtrain: training.epochs should be at least 1, got 0",
        ),
        (["config", "show", "--no-such-option"], 2, "Usage:"),
        (["cache", "ls", "nowhere"], 2, "simtrain: there is no folder 'nowhere'"),
    ],
)
def test_other_ends(folder, words, code, message):
    done = run(folder, *words)
    assert done.returncode == code
    assert done.stderr.startswith(message)
    assert "Traceback" not in done.stderr


def test_what_nobody_expected_ends_with_1_and_a_traceback(folder):
    code = "import simtrain.cli.train as t\nt.answering = None\nfrom simtrain.cli import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "job.yaml"], capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
