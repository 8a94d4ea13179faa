"""Exact evaluation of 10,000 queries against growing galleries: seconds, and memory beside the embeddings.

Every size is a process of its own. Run ``python benchmarks/evaluation/scale.py --json out.json``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch

DIM, PER_CLASS = 128, 5


def unit_points(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(n, DIM, generator=generator)
    # In place and in blocks: the peak of making the data would hide what is measured.
    for start in range(0, n, 1024):
        rows = points[start : start + 1024]
        classes = torch.arange(start, start + len(rows)) // PER_CLASS
        rows.add_(centers(classes), alpha=1.5)
        rows.div_(rows.norm(dim=1, keepdim=True))
    return points, torch.arange(n) // PER_CLASS


def centers(classes: torch.Tensor) -> torch.Tensor:
    """The same centre for a class wherever it is asked for, without a table of all."""
    table = torch.randn(4096, DIM, generator=torch.Generator().manual_seed(7))
    return (table[classes % 4096] + table[classes * 31 % 4093]) / 2**0.5


def measure(n_gallery: int, n_queries: int, threads: int, show: bool, answer: Connection) -> None:
    from simtrain.metrics import retrieval_report

    torch.set_num_threads(threads)
    gallery, gallery_labels = unit_points(n_gallery, seed=0)
    queries, labels = unit_points(n_queries, seed=1)
    retrieval_report(queries[:2000], labels[:2000], gallery[:2000], gallery_labels[:2000])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    report = retrieval_report(queries, labels, gallery, gallery_labels, show_progress=show)
    seconds = time.perf_counter() - start
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    start = time.perf_counter()
    for block in queries.split(48):
        block @ gallery.T
    floor = time.perf_counter() - start
    figures = {name: report[name] for name in ("precision@1", "mrr", "r_precision", "map@r")}
    answer.send({"n_gallery": n_gallery, "seconds": seconds, "floor": floor, "megabytes": megabytes, **figures})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--galleries", type=int, nargs="+", default=[62_500, 125_000, 250_000, 500_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--show-progress", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"{arguments.queries:,} queries, dim {DIM}, {PER_CLASS} relevant items a query")
    print("| gallery | seconds | x chunked product | MB beside the embeddings |")
    print("|---|---|---|---|")
    rows, context = [], multiprocessing.get_context("spawn")
    for n_gallery in arguments.galleries:
        receiver, sender = context.Pipe(duplex=False)
        wanted = (n_gallery, arguments.queries, arguments.threads, arguments.show_progress, sender)
        process = context.Process(target=measure, args=wanted)
        process.start()
        sender.close()
        row = receiver.recv()
        process.join()
        rows.append(row)
        ratio = row["seconds"] / row["floor"]
        print(f"| {n_gallery:,} | {row['seconds']:.1f} | {ratio:.2f} | {row['megabytes']:.0f} |", flush=True)
    if arguments.json:
        found = {"dim": DIM, "queries": arguments.queries, "threads": arguments.threads, "rows": rows}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
