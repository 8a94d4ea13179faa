"""One of several processes: losses, gradients and memories over the global batch, saved into a folder."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import lightning
import torch
import torch.distributed as dist

from simtrain import TrainableModel, XbmConfig, registry
from simtrain.data import (
    GroupSimilarityDataLoader,
    PairsSimilarityDataLoader,
    SimilarityGroupSample,
    SimilarityPairSample,
    SimilarityTripletSample,
    TripletSimilarityDataLoader,
)
from simtrain.encoders import PrecomputedEncoder
from simtrain.heads import StackedProjectionHead
from simtrain.losses import (
    CombinedLoss,
    ContrastiveLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
    SoftmaxLoss,
    SupConLoss,
    TripletLoss,
)

warnings.simplefilter("ignore")

DIM, N = 6, 41


def vectors(n: int) -> list[list[float]]:
    return torch.randn(n, DIM, generator=torch.Generator().manual_seed(5)).tolist()


def groups() -> list:
    return [SimilarityGroupSample(vector, number % 7) for number, vector in enumerate(vectors(N))]


def pairs() -> list:
    both = vectors(2 * N)
    return [SimilarityPairSample(both[i], both[i + N], subgroup=i % 5) for i in range(N)]


def triplets() -> list:
    rows = vectors(4 * N)
    return [SimilarityTripletSample(rows[i], rows[i + N], rows[i + 2 * N : i + 2 * N + 1 + i % 2]) for i in range(N)]


#: Name -> samples, loader, loss, memory. The memory's sizes are no multiples of a batch.
KINDS = {
    "group": (groups, GroupSimilarityDataLoader, TripletLoss, None),
    "group-xbm": (groups, GroupSimilarityDataLoader, SupConLoss, XbmConfig(buffer_size=29, start_iteration=1)),
    # Less than one process's share of a batch.
    "group-small": (groups, GroupSimilarityDataLoader, SupConLoss, XbmConfig(buffer_size=5, start_iteration=0)),
    "pairs-small": (
        pairs,
        PairsSimilarityDataLoader,
        MultipleNegativesRankingLoss,
        XbmConfig(buffer_size=5, start_iteration=0),
    ),
    "group-momentum": (
        groups,
        GroupSimilarityDataLoader,
        SupConLoss,
        XbmConfig(buffer_size=29, start_iteration=0, momentum=0.5),
    ),
    "learnt": (groups, GroupSimilarityDataLoader, lambda: SupConLoss({"initial": 0.2}), None),
    "pairs": (pairs, PairsSimilarityDataLoader, MultipleNegativesRankingLoss, None),
    "pairs-xbm": (
        pairs,
        PairsSimilarityDataLoader,
        lambda: MultipleNegativesRankingLoss(symmetric=True),
        XbmConfig(buffer_size=23, start_iteration=0),
    ),
    "contrastive": (pairs, PairsSimilarityDataLoader, ContrastiveLoss, XbmConfig(buffer_size=23, start_iteration=0)),
    "pml": (
        groups,
        GroupSimilarityDataLoader,
        lambda: registry.losses.build({"type": "pml.ContrastiveLoss", "neg_margin": 0.5}),
        XbmConfig(buffer_size=29, start_iteration=1),
    ),
    "pml-mined": (
        groups,
        GroupSimilarityDataLoader,
        lambda: registry.losses.build(
            {"type": "pml.TripletMarginLoss", "miner": {"type": "pml.BatchHardMiner"}, "margin": 0.5}
        ),
        XbmConfig(buffer_size=24, start_iteration=0),
    ),
    "combined": (
        groups,
        GroupSimilarityDataLoader,
        lambda: CombinedLoss(
            {
                "near": TripletLoss(mining="all"),
                "sizes": MatryoshkaLoss(SupConLoss(), [4, 2]),
                "classes": SoftmaxLoss(4, 7),
            },
            memory=["near", "sizes"],
        ),
        XbmConfig(buffer_size=29, start_iteration=0),
    ),
    "combined-pairs": (
        pairs,
        PairsSimilarityDataLoader,
        lambda: CombinedLoss({"rank": MultipleNegativesRankingLoss(), "push": ContrastiveLoss()}),
        XbmConfig(buffer_size=23, start_iteration=0),
    ),
    "triplets": (
        triplets,
        TripletSimilarityDataLoader,
        lambda: TripletLoss(mining="all"),
        XbmConfig(buffer_size=31, start_iteration=0),
    ),
}


def make_model(kind: str) -> TrainableModel:
    torch.manual_seed(0)
    _, _, loss, xbm = KINDS[kind]
    return TrainableModel(
        encoders=PrecomputedEncoder(DIM),
        head=lambda size: StackedProjectionHead(size, [8, 4]),
        loss=loss(),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.3),
        xbm=xbm,
    )


def make_loader(kind: str, batch_size: int):
    samples, loader, _, _ = KINDS[kind]
    # 41 samples in batches of 12 (of all processes) leave 5 for the last one: 3 for one process and 2 for the other.
    return loader(samples(), batch_size=batch_size, shuffle=True, generator=torch.Generator().manual_seed(3))


def train(kind: str, devices: int, batch_size: int) -> dict:
    model, losses = make_model(kind), []
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Losses(losses)],
    )
    trainer.fit(model, make_loader(kind, batch_size))
    return {"losses": losses, **model.state_dict()}


class Losses(lightning.Callback):
    """Notes the loss of every batch."""

    def __init__(self, losses: list[float]) -> None:
        self.losses = losses

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.losses.append(outputs["loss"].item())


if __name__ == "__main__":
    for kind in KINDS:
        result = train(kind, 2, 6)
        assert dist.get_world_size() == 2
        torch.save(result, Path(sys.argv[1]) / f"{kind}-{dist.get_rank()}.pt")
    dist.destroy_process_group()
