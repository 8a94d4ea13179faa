"""The demo's task, measured: which recipe is chosen, and what it reaches on packages that it never saw.

    python benchmarks/api_search.py --select      # train on three packages, validate on the fourth; no test data
    python benchmarks/api_search.py               # the chosen recipe on the standard library, three seeds

Needs the files and the cache that ``make demo`` leaves in ``runs/api_search``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from simtrain import load_cfg
from simtrain.data import SimilarityPairDataset, SimilarityPairSample, read_records, shared_object_subgroups
from simtrain.evaluation import RetrievalResult, evaluate
from simtrain.evaluation.table import comparison_table
from simtrain.runner import Runner
from simtrain.runner.job import make_loader, seed_run
from simtrain.training import TrainableModel, build_model

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "examples" / "api_search" / "config.yaml"
#: R@1 and R@10 of the metric-learning papers are hit rates: is any relevant entry among the first k?
METRICS = ("hit_rate@1", "hit_rate@10", "mrr")
#: Changes to the demo's config that were compared; the first is the demo's own.
RECIPES = {
    "the demo's": [],
    "gates closed (quaterion's start)": ["head.identity_init=false"],
    "dropout 0.1": ["head.dropout=0.1"],
    "dropout 0.3": ["head.dropout=0.3"],
    "scale 20": ["loss.scale=20"],
    "scale 45": ["loss.scale=45"],
    "both directions": ["loss.symmetric=true"],
    "same-side negatives": ["loss.symmetric=true", "loss.same_side=true"],
    "batch 256": ["training.batch_size=256"],
    "batch 1024": ["training.batch_size=1024"],
    "4 epochs": ["training.epochs=4"],
    "16 epochs": ["training.epochs=16"],
    "rate 3e-4": ["optimizer.lr=3e-4"],
    "rate 3e-3": ["optimizer.lr=3e-3"],
    "weight decay 0.3": ["optimizer.weight_decay=0.3"],
    "2 layers": ["head.n_layers=2"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--select", action="store_true", help="compare recipes on the training packages")
    parser.add_argument("--only", nargs="*", help="names of recipes to compare")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    figures = select(arguments.only or list(RECIPES), arguments.seeds) if arguments.select else final(arguments.seeds)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def select(names: Sequence[str], seeds: int) -> dict[str, Any]:
    """Mean validation figures of each recipe, leaving out one training package at a time."""
    rows = read_records(ROOT / load_cfg(CONFIG).data.train)
    packages = sorted({row["package"] for row in rows})
    print(f"mean over {', '.join(packages)}, each left out in turn, and {seeds} seeds\n")
    figures: dict[str, Any] = {}
    for column in ("entry", "document"):
        results = [frozen(pairs([row for row in rows if row["package"] == package], column)) for package in packages]
        show(figures, f"frozen, column {column!r}", results, 0.0)
    for name in names:
        start, results = time.perf_counter(), []
        for package, seed in [(package, seed) for package in packages for seed in range(seeds)]:
            train = pairs([row for row in rows if row["package"] != package])
            valid = pairs([row for row in rows if row["package"] == package])
            results.append(evaluate(trained([*RECIPES[name], f"seed={seed}"], train).cached, valid))
        show(figures, name, results, (time.perf_counter() - start) / len(results))
    return figures


def final(seeds: int) -> dict[str, Any]:
    """The chosen recipe, trained on all training packages, on the standard library."""
    cfg = load_cfg(CONFIG)
    train, rows = pairs(read_records(ROOT / cfg.data.train)), read_records(ROOT / cfg.data.test)
    raw, cleaned = frozen(pairs(rows, "entry")), frozen(pairs(rows))
    figures = {"frozen, raw entries": raw.as_dict(METRICS), "frozen, cleaned entries": cleaned.as_dict(METRICS)}
    print("cleaning the entries alone, frozen encoder\n\n" + comparison_table(raw, cleaned, METRICS))
    for seed in range(seeds):
        start = time.perf_counter()
        model = trained([f"seed={seed}"], train)
        seconds = time.perf_counter() - start
        tuned = evaluate(model.cached, pairs(rows))
        figures[f"tuned, seed {seed}"] = {**tuned.as_dict(METRICS), "seconds": seconds}
        print(f"\nhead, seed {seed}, trained in {seconds:.1f} s, against the frozen encoder on cleaned entries\n")
        print(comparison_table(cleaned, tuned, METRICS))
        if seed == 0:
            print("\nthe same against the frozen encoder on raw entries\n\n" + comparison_table(raw, tuned, METRICS))
    return figures


def pairs(rows: Sequence[dict[str, Any]], column: str = "document") -> SimilarityPairDataset:
    """The pairs of some rows, with entries as they stand in ``column``."""
    queries, documents = [row["query"] for row in rows], [row[column] for row in rows]
    subgroups = shared_object_subgroups(queries, documents)
    return SimilarityPairDataset(
        [SimilarityPairSample(*pair, 1.0, number) for *pair, number in zip(queries, documents, subgroups, strict=True)]
    )


def trained(overrides: Sequence[str], data: SimilarityPairDataset) -> TrainableModel:
    """The model of the demo's config, trained."""
    cfg = load_cfg(CONFIG, [*overrides, "training.progress_bar=false"])
    seed_run(cfg)
    model = build_model(cfg)
    Runner(model, train_data_loader=make_loader(cfg, data, "train"), cfg=cfg).fit()
    return model


def frozen(data: SimilarityPairDataset) -> RetrievalResult:
    """Figures of the encoder alone."""
    return evaluate(build_model(load_cfg(CONFIG)).cached.without_head(), data)


def show(figures: dict[str, Any], name: str, results: Sequence[RetrievalResult], seconds: float) -> None:
    """Print and keep the means of one recipe."""
    means = {metric: sum(mean(results, metric)) / len(results) for metric in METRICS}
    figures[name] = {**means, "seconds": seconds}
    print(
        f"{name:34s}" + "".join(f"  {metric} {value:.4f}" for metric, value in means.items()) + f"  {seconds:.1f} s",
        flush=True,
    )


def mean(results: Sequence[RetrievalResult], metric: str) -> Iterator[float]:
    """The metric of each result."""
    return (result.metrics[metric] for result in results)


if __name__ == "__main__":
    main()
