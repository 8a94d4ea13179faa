"""Runs that are killed and resumed until they end: ``python kill_runs.py FOLDER KIND:MOMENT …``.

One process imports everything, and forks one for each run, which is killed with SIGKILL: at a moment that the clock
chooses, or where it has come to in its work.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
import warnings
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback

from simtrain.runner.checkpoints import checkpoint_file
from tests.runner.exact_runs import Lines, train

MOMENTS = ("clock", "step", "validation", "saving", "end")
CHECKPOINT = {"step_interval": 4}
MOST_KILLS = 8
# A run ends once, and with few steps to an epoch it is seldom saved.
MOST_ARRIVALS = {"end": 1, "saving": 4}


class FileLines(Lines):
    """Keeps what is logged in a file, line by line."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    def log_metrics(self, metrics, step=None):
        with self.file.open("a") as lines:
            lines.writelines(json.dumps([name, step, value]) + "\n" for name, value in metrics.items())


class Killer(Callback):
    """Kills its own process when it has come to a hook for so many times."""

    def __init__(self, moment: str, count: int) -> None:
        self.moment, self.count = moment, count
        hook = {"step": "on_before_optimizer_step", "validation": "on_validation_batch_start", "end": "on_train_end"}
        if moment in hook:
            setattr(self, hook[moment], self.arrive)

    def on_train_start(self, trainer, module):
        if self.moment == "saving":  # in the process that is to be killed, and in no other
            replace = os.replace
            checkpoint_file.os.replace = lambda *names: (self.arrive(), replace(*names))

    def arrive(self, *args):
        self.count -= 1
        if self.count == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def forked(function) -> int:
    """The number of a process that calls ``function`` and ends."""
    process = os.fork()
    if process:
        return process
    try:
        function()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def run(kind: str, folder: Path, callbacks=(), **words) -> None:
    """Train, and leave the result in ``result.pt``."""
    warnings.simplefilter("ignore")
    lines = FileLines(folder / "lines.jsonl")
    model, _ = train(kind, folder, callbacks=callbacks, lines=lines, **words)
    torch.save(model.state_dict(), folder / "result.pt")


def killed(kind: str, folder: Path, moment: str, dice: random.Random, seconds: float) -> int:
    """Kill a run and resume it until it ends; how often it was killed."""
    kills = 0
    while True:
        callbacks = []
        if moment != "clock" and kills < MOST_KILLS:
            callbacks = [Killer(moment, dice.randint(1, MOST_ARRIVALS.get(moment, 9)))]
        # Before its first checkpoint there is nothing to go on from.
        resume_from = "auto" if (folder / "checkpoints").is_dir() else None
        process = forked(partial(run, kind, folder, callbacks, checkpoint=CHECKPOINT, resume_from=resume_from))
        if moment == "clock" and kills < MOST_KILLS:
            time.sleep(dice.uniform(0.1, 0.7) * seconds)
            os.kill(process, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if code == 0 and moment == "clock" and kills == 0:  # faster than the run in peace was: once more, earlier
            shutil.rmtree(folder)
            folder.mkdir()
            seconds /= 2
            continue
        if code == 0:
            return kills
        if code != -signal.SIGKILL:
            raise SystemExit(f"{kind}:{moment} failed after {kills} kills")
        kills += 1


def main(folder: Path, words: list[str]) -> None:
    """Run each kind once in peace, and once for each moment with kills."""
    dice, seconds = random.Random(len(words)), {}
    for word in words:
        kind, moment = word.split(":")
        for name in ("whole", word):
            (folder / name / kind).mkdir(parents=True, exist_ok=True)
        if not (folder / "whole" / kind / "result.pt").exists():
            start = time.perf_counter()
            process = forked(partial(run, kind, folder / "whole" / kind))
            assert os.waitpid(process, 0)[1] == 0
            seconds[kind] = time.perf_counter() - start
        kills = killed(kind, folder / word / kind, moment, dice, seconds[kind])
        (folder / word / kind / "kills").write_text(str(kills))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
