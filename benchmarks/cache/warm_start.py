"""A second run of the demo's job beside its first one: the texts that the encoder is given, counted, and the time.

The demo's own config (real texts, the real all-MiniLM-L6-v2, a cache on disk) on the first pairs of each split, in a
process each: training, evaluation before and after, and indexing. Target: the second run gives the encoder nothing.
Run ``python benchmarks/cache/warm_start.py`` (``--json out.json``); the pairs are collected where ``make demo`` has not
left them in ``runs/api_search``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from simtrain import fit, load_cfg
from simtrain.cli import app
from simtrain.encoders import SentenceTransformerEncoder

DEMO = Path(__file__).parents[2] / "examples" / "api_search"
COLLECTED = Path("runs/api_search")


def collect(folder: Path, n: int) -> None:
    """Write the first pairs of each split."""
    for split in ("train", "test"):
        source = COLLECTED / f"{split}.jsonl"
        if not source.exists():
            source = folder / f"all-{split}.jsonl"
            subprocess.run([sys.executable, DEMO / "collect.py", split, source], check=True)
        lines = source.read_text().splitlines(keepends=True)[:n]
        (folder / f"{split}.jsonl").write_text("".join(lines))


def run(folder: Path) -> dict[str, float]:
    """Run the job once, and count; in a process of its own."""
    encoded = {"forwards": 0, "texts": 0}

    def count(module: nn.Module, _: Any, embeddings: Any) -> None:
        if isinstance(module, SentenceTransformerEncoder):
            encoded["forwards"] += 1
            encoded["texts"] += len(embeddings)

    # From outside: a hook of the encoder's own would be a part of its identity.
    torch.nn.modules.module.register_module_forward_hook(count)
    config = load_cfg(DEMO / "config.yaml")
    config.run_dir, config.cache.save_dir = str(folder / "run"), str(folder / "cache")
    config.data.train, config.data.test = str(folder / "train.jsonl"), str(folder / "test.jsonl")
    config.training.batch_size = 32
    start = time.perf_counter()
    result = fit(config)
    assert result.model_path is not None
    words = [result.model_path, folder / "test.jsonl", folder / "index", "--cache", folder / "cache"]
    app(["index", *map(str, words)], standalone_mode=False)
    return {**encoded, "seconds": time.perf_counter() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1000, help="pairs of each split")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", type=Path, help="a prepared folder; used by this script itself")
    args = parser.parse_args()
    if args.run:
        print("figures", json.dumps(run(args.run)))
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        collect(Path(folder), args.n)
        for name in ("first", "second"):
            words = [sys.executable, __file__, "--run", folder]
            done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
            results[name] = json.loads(done.stdout.rpartition("figures ")[2])
            print(
                "{0:>6} run: {forwards:4d} forwards, {texts:5d} texts, {seconds:6.1f} s".format(name, **results[name])
            )
    if args.json:
        args.json.write_text(json.dumps({"n": args.n, **results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
