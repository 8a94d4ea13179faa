"""One of several processes: figures of whole data sets and of batches, where a distributed sampler repeats rows."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import lightning
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from simtrain import AttachedMetric, TrainableModel
from simtrain.data import (
    GroupSimilarityDataLoader,
    PairsSimilarityDataLoader,
    QueryGallery,
    SimilarityGroupSample,
    SimilarityPairSample,
)
from simtrain.encoders import PrecomputedEncoder
from simtrain.evaluation import BaseMetric, HeldOutRetrieval, PairCorrelation, SetRetrieval
from simtrain.heads import StackedProjectionHead
from simtrain.losses import ContrastiveLoss, TripletLoss
from simtrain.metrics import RetrievalPrecision
from simtrain.training import AttachedEvaluator

warnings.simplefilter("ignore")

DIM, N = 6, 41


class Rows(BaseMetric):
    """Sum of the samples' numbers, by a result for each sample."""

    def process(self, data_batch, data_samples):
        self.results += data_samples["targets"]["groups"].tolist()

    def compute_metrics(self, results):
        return {"groups": float(sum(results)), "rows": float(len(results))}


def vectors(n: int) -> list[tuple[float, ...]]:
    return [tuple(row) for row in torch.randn(n, DIM, generator=torch.Generator().manual_seed(5)).tolist()]


def groups() -> list:
    return [SimilarityGroupSample(vector, number % 7) for number, vector in enumerate(vectors(N))]


def pairs() -> list:
    rows = torch.tensor(vectors(2 * N))
    # Some queries and documents come twice; scores are graded. A document is near its query: which items are the first
    # three does not depend on last digits.
    documents = 0.9 * rows[torch.arange(N) // 2] + 0.05 * rows[N:]
    objects = [(tuple(rows[i // 2].tolist()), tuple(documents[i % 38].tolist())) for i in range(N)]
    return [SimilarityPairSample(query, document, score=(i % 5) / 4) for i, (query, document) in enumerate(objects)]


ONE = HeldOutRetrieval([SimilarityPairSample(vectors(2)[0], vectors(2)[1])], k=1)


def plain(samples: list, batch_size: int) -> DataLoader:
    return DataLoader(samples, batch_size=batch_size, collate_fn=list)


def searched() -> QueryGallery:
    rows = vectors(60)
    numbers = list(range(9)), list(range(60))
    return QueryGallery(rows[:9], rows, [n % 7 for n in numbers[0]], [n % 7 for n in numbers[1]], *numbers)


#: Name -> samples, loader, loss, evaluators.
KINDS = {
    "groups": (
        groups,
        GroupSimilarityDataLoader,
        TripletLoss,
        # A gallery, and a set with fewer items than there are processes.
        {"set": SetRetrieval(k=(1, 3)), "rows": Rows(), "own": HeldOutRetrieval(searched()), "one": ONE},
    ),
    "plain": (groups, plain, TripletLoss, {"set": SetRetrieval(k=(1, 3)), "rows": Rows()}),
    "pairs": (pairs, PairsSimilarityDataLoader, ContrastiveLoss, {"set": SetRetrieval(k=1), "all": PairCorrelation()}),
}
STAGES = ("train", "validation", "test")


def measure(kind: str, devices: int, batch_size: int) -> dict[str, float]:
    samples, loader, loss, evaluators = KINDS[kind]
    torch.manual_seed(0)
    model = TrainableModel(
        encoders=PrecomputedEncoder(DIM),
        head=lambda size: StackedProjectionHead(size, [8, 4]),
        loss=loss(),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0),
        metrics=[] if kind == "plain" else AttachedMetric("p", RetrievalPrecision(k=3), on_epoch=True, on_step=False),
        evaluators=[AttachedEvaluator(one, name, STAGES) for name, one in evaluators.items()],
    )
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, loader(samples(), batch_size=batch_size), loader(samples(), batch_size=batch_size))
    # A distributed sampler repeats what it trains on, too: those batches are not the ones of one process.
    figures = {name: float(value) for name, value in trainer.callback_metrics.items() if name != "p_train"}
    trainer.test(model, loader(samples(), batch_size=batch_size), verbose=False)
    figures.update({name: float(value) for name, value in trainer.callback_metrics.items()})
    return {
        name: value
        for name, value in figures.items()
        if name.startswith(("p_", "set_", "rows_", "all_", "own_", "one_"))
    }


if __name__ == "__main__":
    for kind in KINDS:
        result = measure(kind, 2, 6)
        assert dist.get_world_size() == 2
        (Path(sys.argv[1]) / f"{kind}-{dist.get_rank()}.json").write_text(json.dumps(result))
    dist.destroy_process_group()
