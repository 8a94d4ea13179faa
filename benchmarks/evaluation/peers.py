"""Exact retrieval evaluation beside sentence-transformers, open-metric-learning (OML) and Quaterion.

Two searches: items among themselves, and queries in a gallery of as many items. A peer is measured where it can be
imported. The last two ask for older packages than a new torch goes with: a folder of their own takes them, with what
they need here and nothing else, and leaves all that is installed as it is. In one line each:

    pip install --no-deps --ignore-requires-python --target PEERS open-metric-learning==4.0.0 quaterion==0.1.35
        quaterion-models==0.1.19 gdown beautifulsoup4 soupsieve validators mmh3 loguru
    PYTHONPATH=PEERS python benchmarks/evaluation/peers.py --json out.json

Each run is a process of its own. A figure that a peer defines as simtrain does is compared with simtrain's.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import statistics
from pathlib import Path
from typing import Any, TypeVar

import torch
from retrieval import DIM, QUALITY, Figures, Work, data, in_own_process
from torch import Tensor

KS = [1, 5, 10]
# Bytes that Quaterion takes for each pair of items, seen at 10,000.
QUATERION_BYTES = 34


def halves(points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries and their labels, gallery and its labels."""
    n = len(points) // 2
    return points[:n], labels[:n], points[n:], labels[n:]


def simtrain_alone(points: Tensor, labels: Tensor) -> Figures:
    from simtrain.metrics import retrieval_report

    return retrieval_report(points, labels, k=KS)


def simtrain_gallery(points: Tensor, labels: Tensor) -> Figures:
    from simtrain.metrics import retrieval_report

    return retrieval_report(*halves(points, labels), k=KS)


def oml_alone(points: Tensor, labels: Tensor) -> Figures:
    every = torch.arange(len(points))
    return oml(points, labels, every, every)


def oml_gallery(points: Tensor, labels: Tensor) -> Figures:
    every = torch.arange(len(points))
    return oml(points, labels, every[: len(points) // 2], every[len(points) // 2 :])


def oml(points: Tensor, labels: Tensor, queries: Tensor, gallery: Tensor) -> Figures:
    from oml.functional.knn import batched_knn
    from oml.functional.metrics import calc_retrieval_metrics

    # By Euclidean distance, which orders these embeddings of unit length as cosine does.
    _, found, relevant = batched_knn(points, queries, gallery, top_n=max(KS), labels_gt=labels)
    cuts: dict[str, Any] = {"cmc_top_k": tuple(KS), "precision_top_k": tuple(KS), "map_top_k": tuple(KS)}
    metrics = calc_retrieval_metrics(found, relevant, verbose=False, **cuts)
    # Its precision is divided by the lesser of k and R: another figure, but for k = 1.
    return {
        "precision@1": float(metrics["precision"][1]),
        **{f"hit_rate@{k}": float(metrics["cmc"][k]) for k in KS},
        **{f"map@{k}, hits": float(metrics["map"][k]) for k in KS},
    }


def quaterion_alone(points: Tensor, labels: Tensor) -> Figures:
    import torch.utils.data.dataloader
    import torch.utils.data.dataset

    # Its other parts want a name that torch no longer has; nothing that is measured uses it.
    for module in (torch.utils.data.dataset, torch.utils.data.dataloader):
        vars(module).setdefault("T_co", TypeVar("T_co", covariant=True))
    from quaterion.eval.group.retrieval_r_precision import RetrievalRPrecision

    return {"r_precision, micro": float(RetrievalRPrecision().compute(points, labels))}


def sentence_transformers_gallery(points: Tensor, labels: Tensor) -> Figures:
    from sentence_transformers.util import cos_sim

    try:
        from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
    except ImportError:
        from sentence_transformers.evaluation import InformationRetrievalEvaluator

    queries, query_labels, gallery, gallery_labels = halves(points, labels)
    members: dict[int, set[str]] = {}
    for item, label in enumerate(gallery_labels.tolist()):
        members.setdefault(label, set()).add(str(item))
    relevant = {str(row): members.get(label, set()) for row, label in enumerate(query_labels.tolist())}
    evaluator = InformationRetrievalEvaluator(
        {str(row): str(row) for row in range(len(queries))},
        {str(row): str(row) for row in range(len(gallery))},
        relevant,
        mrr_at_k=[max(KS)],
        ndcg_at_k=KS,
        accuracy_at_k=KS,
        precision_recall_at_k=KS,
        map_at_k=KS,
        write_csv=False,
        score_functions={"cosine": cos_sim},
    )
    metrics = evaluator.compute_all_metrics(Known(queries, gallery))["cosine"]
    names = {"hit_rate": "accuracy", "precision": "precision", "recall": "recall", "map": "map", "ndcg": "ndcg"}
    return {f"{ours}@{k}": float(metrics[f"{theirs}@k"][k]) for ours, theirs in names.items() for k in KS}


class Known:
    """A model that knows the embeddings of its texts, which are numbers of rows."""

    def __init__(self, queries: Tensor, gallery: Tensor) -> None:
        self.queries, self.gallery = queries, gallery

    def encode_query(self, texts: list[str], **options: Any) -> Tensor:
        """Of some queries."""
        return self.queries[[int(text) for text in texts]]

    def encode_document(self, texts: list[str], **options: Any) -> Tensor:
        """Of some gallery items."""
        return self.gallery[[int(text) for text in texts]]


SEARCHES: dict[str, dict[str, Work]] = {
    "among themselves": {"simtrain": simtrain_alone, "OML": oml_alone, "Quaterion": quaterion_alone},
    "queries, gallery": {
        "simtrain": simtrain_gallery,
        "OML": oml_gallery,
        "sentence-transformers": sentence_transformers_gallery,
    },
}
MODULES = {"OML": "oml", "Quaterion": "quaterion", "sentence-transformers": "sentence_transformers"}


def reference(points: Tensor, labels: Tensor, alone: bool) -> Figures:
    """All that a peer's figures can be compared with, by the name that the peer's has here."""
    from simtrain.metrics import retrieval_report

    searched = (points, labels) if alone else halves(points, labels)
    found = retrieval_report(*searched, k=KS)
    hits = retrieval_report(*searched, k=KS, denominator="hits")
    micro = retrieval_report(*searched, k=KS, average="micro")
    found.update({f"map@{k}, hits": hits[f"map@{k}"] for k in KS})
    return {**found, "r_precision, micro": micro["r_precision"]}


def missing(peer: str, n: int) -> str | None:
    """Why a peer is not measured; None where it is."""
    if peer in MODULES and importlib.util.find_spec(MODULES[peer]) is None:
        return "not installed"
    needed, memory = QUATERION_BYTES * n * n, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if peer == "Quaterion" and needed > memory:
        return f"takes about {needed / 2**30:.0f} GB, this machine has {memory / 2**30:.0f}"
    return None


def compared(search: str, n: int, classes: int, quality: str, repeats: int, threads: int) -> list[dict[str, Any]]:
    alone = search == "among themselves"
    shape = (n if alone else 2 * n, classes, quality)
    expected = reference(*data(*shape), alone)
    runs: dict[str, list[dict[str, Any]]] = {}
    for _, (peer, work) in itertools.product(range(repeats), SEARCHES[search].items()):
        if (reason := missing(peer, n)) is None:
            runs.setdefault(peer, []).append(in_own_process(work, shape, threads))
        elif peer not in runs:
            print(f"{peer}, N = {n:,}: not measured, {reason}")
            runs[peer] = []
    rows: list[dict[str, Any]] = []
    for peer, measured in runs.items():
        if not measured:
            rows.append({"search": search, "n": n, "way": peer, "not_measured": missing(peer, n)})
            continue
        seconds = statistics.median(run["seconds"] for run in measured)
        figures = measured[0]["figures"]
        row = {"search": search, "n": n, "classes": classes, "way": peer, "seconds": seconds, "figures": figures}
        row["x_simtrain"] = seconds / rows[0]["seconds"] if rows else 1.0
        row["megabytes"] = max(run["megabytes"] for run in measured)
        row["largest_difference"] = max(abs(value - expected[name]) for name, value in figures.items())
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_000, 10_000, 30_000])
    parser.add_argument("--classes", type=int, default=500, help="fewer where classes would have less than 20 items")
    parser.add_argument("--quality", choices=sorted(QUALITY), default="poor")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    print("| search | N | way | seconds | x simtrain | MB beyond the embeddings | largest difference of figures |")
    print("|---|---|---|---|---|---|---|")
    for n, search in itertools.product(arguments.sizes, SEARCHES):
        classes = min(arguments.classes, n // 20)
        for row in compared(search, n, classes, arguments.quality, arguments.repeats, arguments.threads):
            rows.append(row)
            if "seconds" in row:
                print(
                    f"| {search} | {n:,} | {row['way']} | {row['seconds']:.2f} | {row['x_simtrain']:.1f} | "
                    f"{row['megabytes']:.0f} | {row['largest_difference']:.0e} |",
                    flush=True,
                )
    if arguments.json:
        found = {"dim": DIM, "embeddings": arguments.quality, "threads": arguments.threads, "rows": rows}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
