"""What views cost a training step: a cache with four views of each item against one with the items alone.

The draw is one tensor operation a batch. Both ways train the same head on the same batches, in turn; the ratio is of
the medians over the rounds. Filling is timed too: augmentation has a seed for each item and view.
Run ``python benchmarks/cache/views.py --json out.json``; ``--quick`` for a look in seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from simtrain import CacheConfig, Runner, TrainableModel
from simtrain.data import GroupSimilarityDataLoader, SimilarityGroupSample
from simtrain.encoders import PrecomputedEncoder
from simtrain.heads import SkipConnectionHead
from simtrain.losses import SupConLoss


def noisy(vector: tuple[float, ...]) -> torch.Tensor:
    """A vector with a little noise: a stand-in for whatever one does to images or texts."""
    return torch.tensor(vector) + 0.1 * torch.randn(len(vector))


def trained(samples: list[SimilarityGroupSample], cache: CacheConfig, batch_size: int, dim: int) -> tuple[Any, Any]:
    """A model and its prepared loader."""
    torch.manual_seed(0)
    model = TrainableModel(encoders=PrecomputedEncoder(dim), head=SkipConnectionHead, loss=SupConLoss(), cache=cache)
    return model, model.setup_dataloader(GroupSimilarityDataLoader(samples, batch_size, shuffle=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.quick:
        args.n, args.dim, args.rounds = 2_000, 64, 2
    vectors = torch.randn(args.n, args.dim).tolist()
    samples = [SimilarityGroupSample(tuple(vector), i % (args.n // 4)) for i, vector in enumerate(vectors)]
    caches = {"items alone": CacheConfig("cpu"), "4 views": CacheConfig("cpu", views=4, augment=noisy)}
    ways, filling = {}, {}
    for name, cache in caches.items():
        start = time.perf_counter()
        ways[name] = trained(samples, cache, args.batch_size, args.dim)
        filling[name] = time.perf_counter() - start
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, (model, loader) in ways.items():
            start = time.perf_counter()
            Runner(model, epochs=2, train_data_loader=loader).fit()
            seconds[name].append(time.perf_counter() - start)
    rates = {name: 2 * args.n / statistics.median(taken) for name, taken in seconds.items()}
    for name, rate in rates.items():
        print(f"{name:<12} {rate:9.0f} samples/s, filled in {filling[name]:.1f} s")
    print(f"ratio of medians {rates['4 views'] / rates['items alone']:.3f}")
    if args.json:
        result = {"n": args.n, "dim": args.dim, "batch_size": args.batch_size, "threads": torch.get_num_threads()}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({**result, "rates": rates, "filling": filling}, indent=2) + "\n")


if __name__ == "__main__":
    main()
