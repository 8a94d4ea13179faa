"""Metrics of a TREC run: ``run_metrics`` beside pytrec_eval, with equal figures, and reading the file.

2,000 queries with 1,000 documents each and 100 judgements each; processor seconds of one thread, the two in turn, and
the ratio of the medians. Columns are what ``read_run`` and ``search_run`` give; dicts are what pytrec_eval takes. Run
``python benchmarks/evaluation/trec.py --json out.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytrec_eval

from simtrain.evaluation import Qrels, Run, read_run, run_metrics, write_run

METRICS = ["map", "ndcg", "recip_rank", "Rprec", "bpref"] + [
    f"{name}_{k}" for name in ("P", "success", "ndcg_cut", "map_cut", "recall") for k in (10, 100)
]
Lists = dict[str, dict[str, Any]]


def data(n_queries: int, n_found: int, n_judged: int, n_corpus: int, *, ties: bool) -> tuple[Lists, Lists]:
    generator = np.random.default_rng(0)
    names = [f"doc{number:07d}" for number in range(n_corpus)]
    run, qrels = {}, {}
    for query in range(n_queries):
        found = generator.choice(n_corpus, n_found, replace=False)
        scores = generator.random(n_found)
        scores = scores.round(2) if ties else scores
        run[f"q{query}"] = dict(zip([names[row] for row in found], scores.tolist(), strict=True))
        # Half of the judged documents are found.
        judged = {*found[: n_judged // 2].tolist(), *generator.choice(n_corpus, n_judged // 2).tolist()}
        qrels[f"q{query}"] = {names[row]: int(generator.integers(0, 4)) for row in judged}
    return run, qrels


def cpu_seconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(run: Lists, qrels: Lists, repeats: int, *, from_file: bool) -> dict[str, float]:
    columns, judged = Run.from_dict(run), Qrels.from_dict(qrels)
    ways: dict[str, Callable[[], Any]] = {
        "pytrec_eval": lambda: pytrec_eval.RelevanceEvaluator(qrels, METRICS).evaluate(run),
        "simtrain, dicts": lambda: run_metrics(run, qrels, METRICS),
        "simtrain, columns": lambda: run_metrics(columns, judged, METRICS),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.txt")
        if from_file:
            write_run(columns, path)
            ways["pytrec_eval, file"] = lambda: pytrec_eval.parse_run(path.open())
            ways["simtrain, file"] = lambda: read_run(path)
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for repeat in range(repeats):
            for way, work in ways.items():
                seconds[way].append(cpu_seconds(work))
            print(f"  round {repeat + 1} of {repeats}", flush=True)
    return {way: statistics.median(times) for way, times in seconds.items()}


def largest_difference(run: Lists, qrels: Lists) -> float:
    ours = run_metrics(run, qrels, METRICS)
    theirs = pytrec_eval.RelevanceEvaluator(qrels, METRICS).evaluate(run)
    return max(
        abs(value - theirs[query][name])
        for name, values in ours.scores.items()
        for query, value in zip(ours.query_ids, values, strict=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the queries, two rounds")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    n_queries, repeats = (200, 2) if arguments.quick else (2_000, arguments.repeats)
    rows = []
    for name, ties in (("all scores differ", False), ("scores of two digits (ties)", True)):
        print(f"{name}: {n_queries:,} queries x 1,000 documents")
        run, qrels = data(n_queries, 1_000, 100, 100_000, ties=ties)
        difference = largest_difference(run, qrels)
        seconds = measure(run, qrels, repeats, from_file=not ties)
        rows.append({"scores": name, "largest_difference": difference, "seconds": seconds})
    print("\n| scores | way | CPU seconds | x pytrec_eval | largest difference |\n|---|---|---|---|---|")
    for row in rows:
        for way, value in row["seconds"].items():
            base = row["seconds"]["pytrec_eval, file" if way.endswith("file") else "pytrec_eval"]
            print(f"| {row['scores']} | {way} | {value:.2f} | {value / base:.2f} | {row['largest_difference']:.0e} |")
    if arguments.json:
        content = {"n_queries": n_queries, "n_documents": 1_000, "metrics": METRICS, "rows": rows}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
