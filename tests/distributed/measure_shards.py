"""One of several processes that measure one data set: metrics of batches, and evaluators over uneven shards."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from simtrain import Evaluator
from simtrain.errors import DataError
from simtrain.evaluation import BaseMetric, PairCorrelation, SetRetrieval
from simtrain.metrics import (
    Alignment,
    EffectiveRank,
    PairAUC,
    PairFNMR,
    RetrievalHitRate,
    RetrievalMAP,
    RetrievalNDCG,
    RetrievalPrecision,
    RetrievalRecall,
    RetrievalReciprocalRank,
    RetrievalRPrecision,
    Uniformity,
)

warnings.simplefilter("ignore")

DIM, N, WORLD = 4, 37, 2

METRICS: dict[str, Callable[[], Any]] = {
    "precision": lambda: RetrievalPrecision(3),
    "recall": lambda: RetrievalRecall(3),
    "hit_rate": lambda: RetrievalHitRate(2),
    "ndcg": lambda: RetrievalNDCG(3, graded=True),
    "mrr": RetrievalReciprocalRank,
    "r_precision": RetrievalRPrecision,
    "map": lambda: RetrievalMAP(3, denominator="relevant"),
    "map_r": RetrievalMAP,
    "auc": PairAUC,
    "fnmr": lambda: PairFNMR(0.1),
    "alignment": Alignment,
    "uniformity": Uniformity,
    "micro": lambda: RetrievalRecall(3, average="micro"),
    "zero": lambda: RetrievalRecall(3, empty="zero"),
    "effective_rank": lambda: EffectiveRank(DIM),
}
#: Which process takes which batch of the metrics, and which rows of the evaluators' data; None: as a sampler deals.
SPLITS: dict[str, list[int] | None] = {
    "uneven": [0, 0, 1, 0],
    "one is idle": [1, 1, 1, 1],
    "the other is": [0, 0, 0, 0],
}


def batches(kind: str) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(3)
    made = []
    for size in (16, 8, 30, 12):
        embeddings = torch.randn(size, DIM, generator=generator)
        half = torch.arange(size // 2)
        pairs = {"pairs": torch.stack([half, half + size // 2], dim=1), "labels": half % 5 / 4}
        made.append({"embeddings": embeddings, **(pairs if kind == "pairs" else {"groups": torch.arange(size) % 3})})
    return made


def metric_figures(name: str, kind: str, owners: list[int], rank: int | None) -> float:
    metric = METRICS[name]()
    for batch, owner in zip(batches(kind), owners, strict=True):
        if rank is None or owner == rank:
            metric.update(**batch)
    if name == "fnmr":
        assert metric.rates().fnmr == pytest.approx(float(metric.compute()))
    return float(metric.compute())


class Mean(BaseMetric):
    """Mean of the first entries of all rows."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += data_samples["embeddings"][:, 0].tolist()

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        return {"mean": sum(results) / len(results), "rows": float(len(results))}


def shard(kind: str, rows: torch.Tensor) -> Iterator[dict[str, Any]]:
    """Batches of five of these rows; items know their numbers."""
    generator = torch.Generator().manual_seed(9)
    everything = torch.randn(2 * N, DIM, generator=generator)
    for some in torch.split(rows, 5):
        if kind == "groups":
            yield {"embeddings": everything[some], "targets": {"groups": some % 6, "items": some}}
            continue
        items = torch.cat([some, some + N])
        places = torch.arange(len(some))
        targets = {"pairs": torch.stack([places, places + len(some)], dim=1), "labels": some % 4 / 3, "items": items}
        yield {"embeddings": everything[items], "targets": targets}


#: Rows of each process: a dealer's, uneven ones, and none for one of them. Nothing is repeated but in the first.
SHARDS = {
    "dealt": [torch.arange(0, N + 1, 2) % N, torch.arange(1, N + 1, 2) % N],
    "uneven": [torch.arange(5), torch.arange(5, N)],
    "the first has none": [torch.arange(0), torch.arange(N)],
    "the second has none": [torch.arange(N), torch.arange(0)],
}


def evaluated(kind: str, rows: torch.Tensor, size: int = N) -> dict[str, float]:
    metrics = {"set": SetRetrieval(k=(1, 3)), **({"pairs": PairCorrelation()} if kind == "pairs" else {"own": Mean()})}
    evaluator = Evaluator(metrics)
    for results in shard(kind, rows):
        evaluator.process(results)
    return evaluator.evaluate(size)


def message(metric: SetRetrieval) -> str:
    try:
        metric.evaluate(4)
    except DataError as error:
        return str(error)
    return "none"


def mixed_kinds(rank: int) -> str:
    metric, two = SetRetrieval(k=1), torch.tensor([0, 0])
    targets = {"groups": two} if rank == 0 else {"pairs": torch.tensor([[0, 1]]), "items": torch.tensor([0, 1])}
    metric.process(None, {"embeddings": torch.eye(2), "targets": targets})
    return message(metric)


def broken_rows(rank: int) -> str:
    metric = SetRetrieval(k=1)
    rows = torch.eye(2) / (1 - rank)  # the second process has rows that are not finite
    metric.process(None, {"embeddings": rows, "targets": {"groups": torch.tensor([0, 0])}})
    return message(metric)


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    found: dict[str, Any] = {}
    for kind in ("groups", "pairs"):
        for split, owners in SPLITS.items():
            for name in METRICS:
                found[f"metric/{kind}/{split}/{name}"] = metric_figures(name, kind, owners, rank)
        for split, parts in SHARDS.items():
            found[f"evaluator/{kind}/{split}"] = evaluated(kind, parts[rank])
    found["mixed"], found["nothing"], found["broken"] = mixed_kinds(rank), message(SetRetrieval()), broken_rows(rank)
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
