"""The DISK store at a million embeddings: opening it, random batches from the page cache, memory.

Writes 1,000,000 x 384 float16 (0.8 GB) to a temporary folder, then opens it in a process of its own and gathers
batches of 1,024 in turn with the CPU store. Targets: opened in under 1 s, at least 0.5 of the CPU store's rate,
anonymous memory (RssAnon; mapped pages of files do not count) grows by less than 300 MB. The first reading, which
compares all checksums, is timed beside it. Linux only.
Run ``python benchmarks/cache/disk_store.py`` (``--quick`` for 100,000 rows, ``--json out.json``).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from simtrain.cache import DiskStore, MemoryStore, Store

DIM, BATCH, DTYPE = 384, 1024, "float16"


def keys_of(n: int) -> np.ndarray:
    """Keys as items' digests would be."""
    return np.random.default_rng(0).integers(0, 256, (n, 16), dtype=np.uint8)


def write(folder: Path, n: int) -> None:
    """Fill a store."""
    store, keys = DiskStore(folder, DIM, DTYPE), keys_of(n)
    with store.writing():
        for start in range(0, n, 8192):
            part = keys[start : start + 8192]
            store.append(part, torch.randn(len(part), DIM))


def anonymous_bytes() -> int:
    """RssAnon of this process."""
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def timed(action: Callable[[], object]) -> float:
    """Seconds that an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def measure(folder: Path, n: int, rounds: int) -> dict[str, float]:
    """Open the store and use it; runs in a process of its own."""
    torch.set_num_threads(1)
    keys = keys_of(n)
    before = anonymous_bytes()
    start = time.perf_counter()
    disk = DiskStore(folder, DIM, DTYPE)
    opening = time.perf_counter() - start
    checking = timed(lambda: disk.lookup(keys))
    batches = [torch.from_numpy(rows) for rows in np.random.default_rng(1).integers(0, n, (200, BATCH))]
    for rows in batches:
        disk.gather(rows)
    grown = anonymous_bytes() - before
    memory = MemoryStore(DIM, DTYPE)
    memory.reserve(n)
    for start_row in range(0, n, 8192):
        stop = min(n, start_row + 8192)
        memory.append(keys[start_row:stop], disk.gather(torch.arange(start_row, stop)))
    stores: dict[str, Store] = {"DISK": disk, "CPU": memory}
    assert torch.equal(disk.gather(batches[0]), memory.gather(batches[0]))
    seconds: dict[str, list[float]] = {name: [] for name in stores}
    for _ in range(rounds):
        for name, store in stores.items():
            seconds[name].append(timed(lambda store=store: [store.gather(rows) for rows in batches]))  # type: ignore[misc]
    rates = {name: len(batches) * BATCH / statistics.median(taken) for name, taken in seconds.items()}
    ratio = statistics.median(c / d for c, d in zip(seconds["CPU"], seconds["DISK"], strict=True))
    return {
        "opening_s": opening,
        "first_reading_s": checking,
        "disk_rows_per_s": rates["DISK"],
        "cpu_rows_per_s": rates["CPU"],
        "ratio": ratio,
        "anonymous_mb": grown / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", type=Path, help="a written folder; used by this script itself")
    args = parser.parse_args()
    n = 100_000 if args.quick else args.n
    if args.measure:
        print(json.dumps(measure(args.measure, n, args.rounds)))
        return
    with tempfile.TemporaryDirectory() as folder:
        written = timed(lambda: write(Path(folder) / "store", n))
        words = [sys.executable, __file__, "--measure", f"{folder}/store", "--n", str(n), "--rounds", str(args.rounds)]
        figures = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    print(f"{n:,} x {DIM} {DTYPE}, written in {written:.1f} s")
    print(
        f"opening            {figures['opening_s']:.3f} s (checksums at first use: {figures['first_reading_s']:.2f} s)"
    )
    print(
        f"batches of {BATCH:,}   {figures['disk_rows_per_s']:,.0f} rows/s, CPU store {figures['cpu_rows_per_s']:,.0f}"
    )
    print(f"ratio              {figures['ratio']:.2f}")
    print(f"anonymous memory   {figures['anonymous_mb']:+.0f} MB")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"n": n, **figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
