"""Runs a script as several gloo processes on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch.distributed as dist

ROOT = Path(__file__).parents[2]


def run_ranks(script: Path, *words: str, world_size: int = 2, timeout: float = 270) -> None:
    """Run ``script *words`` in ``world_size`` processes, as torchrun would, and fail with their output."""
    # This process holds the store in which they find each other, as torchrun's does: no other process can take its
    # port between two steps, and no rank that ends takes the store away from one that is still at work.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        **os.environ,
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
        processes = []
        for rank, output in enumerate(outputs):
            env = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            with output.open("wb") as file:
                command = [sys.executable, str(script), *words]
                processes.append(subprocess.Popen(command, env=env, stdout=file, stderr=subprocess.STDOUT))
        codes = _codes(processes, time.monotonic() + timeout)
        told = "\n----\n".join(output.read_text(errors="replace")[-4000:] for output in outputs)
    assert codes == [0] * world_size, f"exit codes {codes}\n{told}"


def _codes(processes: list[subprocess.Popen[bytes]], deadline: float) -> list[int]:
    """The exit codes: where one process has failed, those that would wait for it are killed."""
    try:
        while time.monotonic() < deadline:
            codes = [process.poll() for process in processes]
            if None not in codes or any(codes):
                break
            time.sleep(0.05)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
    return [process.wait() for process in processes]
