"""Exact retrieval evaluation: processor seconds and memory of ``retrieval_report`` beside its floor and PML with faiss.

The floor is one chunked matrix product. Run ``python benchmarks/evaluation/retrieval.py --json out.json``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch

DIM, CLASSES = 128, 500


def data(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    centers = torch.randn(CLASSES, DIM, generator=generator)
    points = torch.randn(n, DIM, generator=generator)
    # In place and in blocks: the peak of making the data would hide what is measured.
    for rows, some in zip(points.split(1024), labels.split(1024), strict=True):
        rows.add_(centers[some], alpha=0.5)
        rows.div_(rows.norm(dim=1, keepdim=True))
    return points, labels


def matmul(points: torch.Tensor, labels: torch.Tensor) -> None:
    for block in points.split(512):
        block @ points.T


def matmul_topk(points: torch.Tensor, labels: torch.Tensor) -> None:
    depth = int(labels.bincount().max())
    for block in points.split(512):
        (block @ points.T).topk(depth)


def simtrain_report(points: torch.Tensor, labels: torch.Tensor) -> None:
    from simtrain.metrics import retrieval_report

    retrieval_report(points, labels)


def pml_faiss(points: torch.Tensor, labels: torch.Tensor) -> None:
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    AccuracyCalculator(include=names, k="max_bin_count", device=torch.device("cpu")).get_accuracy(points, labels)


WAYS: dict[str, Callable[[torch.Tensor, torch.Tensor], None]] = {
    "matmul (floor)": matmul,
    "matmul + topk, k = R": matmul_topk,
    "simtrain": simtrain_report,
    "PML, faiss": pml_faiss,
}


def measure(way: str, n: int, repeats: int, answer: Connection) -> None:
    torch.set_num_threads(1)
    points, labels = data(n)
    WAYS[way](points[:1000], labels[:1000])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(repeats):
        # Processor time of the one thread: what else runs on the machine does not count.
        start = time.process_time()
        WAYS[way](points, labels)
        seconds.append(time.process_time() - start)
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    answer.send({"seconds": statistics.median(seconds), "megabytes": megabytes})


def in_own_process(way: str, n: int, repeats: int) -> dict[str, float]:
    """A process each, so that one way's memory does not hide another's."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(way, n, repeats, sender))
    process.start()
    sender.close()
    result: dict[str, float] = receiver.recv()
    process.join()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 30_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    ways = [way for way in WAYS if way != "PML, faiss" or importlib.util.find_spec("faiss")]
    if "PML, faiss" not in ways:
        print("PML, faiss: not measured, faiss is not installed (pip install faiss-cpu)")
    rows = []
    print("| N | way | CPU seconds | x floor | MB beyond the embeddings |\n|---|---|---|---|---|")
    for n in arguments.sizes:
        floor = None
        for way in ways:
            result = in_own_process(way, n, arguments.repeats)
            floor = floor or result["seconds"]
            rows.append({"n": n, "way": way, **result, "x_floor": result["seconds"] / floor})
            print(
                f"| {n:,} | {way} | {result['seconds']:.2f} | {rows[-1]['x_floor']:.2f} | {result['megabytes']:.0f} |"
            )
    if arguments.json:
        arguments.json.write_text(json.dumps({"dim": DIM, "classes": CLASSES, "threads": 1, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
