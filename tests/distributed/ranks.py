"""Runs a script as several gloo processes on this machine."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch.distributed as dist

ROOT = Path(__file__).parents[2]
# One clean process imports what all scripts need, once, and the ranks are forked from it.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["lightning", "simtrain.runner", "simtrain.losses", "simtrain.encoders"])


class Fresh:
    """A rank that is a program of its own, from its start to the end of Python."""

    def __init__(self, command: list[str], variables: dict[str, str], output: Path) -> None:
        with output.open("wb") as file:
            environment = {**os.environ, **variables}
            self._process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
        self.kill = self._process.kill
        self.wait = self._process.wait

    @property
    def exitcode(self) -> int | None:
        return self._process.poll()


def run_ranks(script: Path, *words: str, world_size: int = 2, timeout: float = 270, fresh: bool = False) -> None:
    """Run ``script *words`` in ``world_size`` processes, as torchrun would, and fail with their output.

    Args:
        script: A Python file.
        *words: Its arguments.
        world_size: Number of processes.
        timeout: Seconds after which they are killed.
        fresh: Start Python anew for each, and let it shut down.
    """
    # This process holds the store in which they find each other, as torchrun's does: no other process can take its
    # port between two steps, and no rank that ends takes the store away from one that is still at work.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "WORLD_SIZE": str(world_size),
        "NODE_RANK": "0",
    }
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, str(rank)) for rank in range(world_size)]
        ranks = []
        for rank, output in enumerate(outputs):
            variables = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            if fresh:
                ranks.append(Fresh([sys.executable, str(script), *words], variables, output))
            else:
                ranks.append(FORKS.Process(target=_run, args=([str(script), *words], variables, str(output))))
                ranks[-1].start()
        codes = _codes(ranks, time.monotonic() + timeout)
        told = "\n----\n".join(output.read_text(errors="replace")[-4000:] for output in outputs if output.exists())
    assert codes == [0] * world_size, f"exit codes {codes}\n{told}"


def _run(words: list[str], variables: dict[str, str], output: str) -> None:
    """Be a rank: what a script finds when it is started."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(variables)
    sys.argv, sys.path[0:0] = words, [str(ROOT)]
    runpy.run_path(words[0], run_name="__main__")
    atexit._run_exitfuncs()  # a forked process ends without


def _codes(ranks: list[Fresh | BaseProcess], deadline: float) -> list[int | None]:
    """The exit codes: where one process has failed, those that would wait for it are killed."""
    try:
        while time.monotonic() < deadline:
            codes = [rank.exitcode for rank in ranks]
            if None not in codes or any(codes):
                break
            time.sleep(0.05)
    finally:
        for rank in ranks:
            if rank.exitcode is None:
                rank.kill()
            rank.wait() if isinstance(rank, Fresh) else rank.join()
    return [rank.exitcode for rank in ranks]
