"""Exact retrieval evaluation: seconds and memory of ``retrieval_report`` beside its floor and PML with faiss.

The floor is one chunked matrix product. Data: items around class centres, so that embeddings are well trained or poor;
500 classes, and the shape of Stanford Online Products (11,316 classes). Every run is a process of its own, in turn.
Run ``python benchmarks/evaluation/retrieval.py --json out.json``.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

Figures = dict[str, float]
Work = Callable[[torch.Tensor, torch.Tensor], Figures | None]
DIM = 128
# How far the centres lie apart: nearest neighbours are mostly right, or mostly wrong.
QUALITY = {"trained": 1.5, "poor": 0.35}


def data(n: int, classes: int, quality: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (n,), generator=generator)
    centers = torch.randn(classes, DIM, generator=generator)
    points = torch.randn(n, DIM, generator=generator)
    # In place and in blocks: the peak of making the data would hide what is measured.
    for rows, some in zip(points.split(1024), labels.split(1024), strict=True):
        rows.add_(centers[some], alpha=QUALITY[quality])
        rows.div_(rows.norm(dim=1, keepdim=True))
    return points, labels


def matmul(points: torch.Tensor, labels: torch.Tensor) -> None:
    for block in points.split(512):
        block @ points.T


def matmul_topk(points: torch.Tensor, labels: torch.Tensor) -> None:
    depth = int(labels.bincount().max())
    for block in points.split(512):
        (block @ points.T).topk(depth)


def simtrain_report(points: torch.Tensor, labels: torch.Tensor) -> Figures:
    from simtrain.metrics import retrieval_report

    report = retrieval_report(points, labels)
    return {name: report[name] for name in ("precision@1", "r_precision", "map@r")}


def pml_faiss(points: torch.Tensor, labels: torch.Tensor) -> Figures:
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    peer = AccuracyCalculator(include=names, k="max_bin_count", device=torch.device("cpu"))
    found = peer.get_accuracy(points, labels)
    return dict(zip(("precision@1", "r_precision", "map@r"), (found[name] for name in names), strict=True))


WAYS: dict[str, Work] = {
    "matmul (floor)": matmul,
    "matmul + topk, k = R": matmul_topk,
    "simtrain": simtrain_report,
    "PML, faiss": pml_faiss,
}


def measure(work: Work, shape: tuple[int, int, str], threads: int, answer: Connection) -> None:
    torch.set_num_threads(threads)
    points, labels = data(*shape)
    work(points[:2000], labels[:2000] % 100)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    figures = work(points, labels)
    seconds = time.perf_counter() - start
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    answer.send({"seconds": seconds, "megabytes": megabytes, "figures": figures})


def in_own_process(work: Work, shape: tuple[int, int, str], threads: int) -> dict[str, Any]:
    """A process each, so that one way's memory does not hide another's."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(work, shape, threads, sender))
    process.start()
    sender.close()
    result: dict[str, Any] = receiver.recv()
    process.join()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 30_000, 60_000])
    parser.add_argument("--classes", type=int, nargs="+", default=[500, 11_316])
    parser.add_argument("--quality", choices=sorted(QUALITY), nargs="+", default=["trained", "poor"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    ways = [way for way in WAYS if way != "PML, faiss" or importlib.util.find_spec("faiss")]
    if "PML, faiss" not in ways:
        print("PML, faiss: not measured, faiss is not installed (pip install faiss-cpu)")
    rows = []
    print("| N | classes | embeddings | way | seconds | x floor | PML / way | MB beyond the embeddings |")
    print("|---|---|---|---|---|---|---|---|")
    for n, classes, quality in itertools.product(arguments.sizes, arguments.classes, arguments.quality):
        if classes > n // 3:
            continue
        runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
        for _ in range(arguments.repeats):
            for way in ways:
                runs[way].append(in_own_process(WAYS[way], (n, classes, quality), arguments.threads))
        seconds = {way: statistics.median(run["seconds"] for run in runs[way]) for way in ways}
        for way in ways:
            row = {"n": n, "classes": classes, "embeddings": quality, "way": way, "seconds": seconds[way]}
            row["x_floor"] = seconds[way] / seconds["matmul (floor)"]
            row["pml_ratio"] = seconds["PML, faiss"] / seconds[way] if "PML, faiss" in seconds else None
            row["megabytes"] = max(run["megabytes"] for run in runs[way])
            row["figures"] = runs[way][0]["figures"]
            rows.append(row)
            ratio = "" if row["pml_ratio"] is None else f"{row['pml_ratio']:.2f}"
            print(
                f"| {n:,} | {classes:,} | {quality} | {way} | {seconds[way]:.2f} | {row['x_floor']:.2f} | {ratio} | "
                f"{row['megabytes']:.0f} |",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps({"dim": DIM, "threads": arguments.threads, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
