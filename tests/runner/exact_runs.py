"""Runs that are left and gone on with, and what is compared of them."""

from __future__ import annotations

import random
from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import Logger
from torch import nn
from torch.utils.data import DataLoader, Dataset

from simtrain import AttachedMetric, BaseModel, CacheConfig, CacheType, Runner, XbmConfig
from simtrain.data import GroupSimilarityDataLoader, HardClassSampler, SimilarityIterableDataset
from simtrain.heads import SkipConnectionHead
from simtrain.losses import SupConLoss
from simtrain.metrics import RetrievalPrecision
from tests.training.models import BagEncoder, group_model, group_samples

N = 40
CPU = CacheConfig(CacheType.CPU)


class Lines(Logger):
    """Keeps what is logged: name, step → value; a step that is logged again replaces what was there."""

    def __init__(self) -> None:
        super().__init__()
        self.figures: dict[tuple[str, int], float] = {}

    name, version = "lines", 0

    def log_metrics(self, metrics, step=None):
        self.figures.update({(name, step): value for name, value in metrics.items()})

    def log_hyperparams(self, *args, **kwargs):
        pass


def cosine(optimizer, steps):
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


def dropout_head(size):
    return SkipConnectionHead(size, dropout=0.3)


def make_model(cache=None, trainable=False, xbm=True, **memory_words):
    memory = XbmConfig(buffer_size=30, start_iteration=2, **memory_words) if xbm else None
    metric = AttachedMetric("p", RetrievalPrecision(1), on_epoch=True)
    return group_model(
        encoders=BagEncoder(trainable=trainable),
        head=dropout_head,
        loss=SupConLoss(),
        cache=cache,
        xbm=memory,
        scheduler=cosine,
        metrics=metric,
        optimizer=partial(torch.optim.AdamW, lr=0.01),
    )


def make_loader(**options):
    return GroupSimilarityDataLoader(group_samples(N, 8), **{"batch_size": 4, "shuffle": True, **options})


def hard_classes(**options):
    samples = group_samples(N, 8)
    sampler = HardClassSampler([one.group for one in samples], batch_size=4, per_group=2)
    return GroupSimilarityDataLoader(samples, batch_size=4, sampler=sampler, **options)


def stream(**options):
    return GroupSimilarityDataLoader(
        SimilarityIterableDataset(partial(iter, group_samples(N, 8))), batch_size=4, **options
    )


class Noisy(Dataset):
    """Rows that are another time each time they are read."""

    def __len__(self):
        return N

    def __getitem__(self, index):
        # Not Python's own generator: beartype draws from it, too.
        noise = torch.rand(4) + np.random.rand()
        return {"x": torch.full((4,), index / N) + noise.float(), "y": torch.tensor(index % 3 / 3)}


class Scorer(BaseModel):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))

    def forward(self, x, y, mode="tensor"):
        score = self.layers(x).squeeze(1)
        return {"loss": nn.functional.mse_loss(score, y)} if mode == "loss" else [score]


class Updating(Scorer):
    """Updates its parameters itself."""

    def train_step(self, data_batch, optim_wrapper):
        return super().train_step(data_batch, optim_wrapper=optim_wrapper)


def plain_loader(**options):
    return DataLoader(Noisy(), batch_size=4, shuffle=True, **options)


def plain_valid_loader():
    return DataLoader(Noisy(), batch_size=8)


def generator_loader():
    return plain_loader(generator=torch.Generator().manual_seed(3))


def valid_loader():
    return GroupSimilarityDataLoader(group_samples(20, 4), batch_size=8)


KINDS = {
    "cached": (partial(make_model, CPU), make_loader, valid_loader, {}),
    "uncached": (make_model, make_loader, valid_loader, {"loop": "trainer"}),
    "trained encoder": (partial(make_model, trainable=True), make_loader, valid_loader, {}),
    "momentum": (partial(make_model, trainable=True, momentum=0.9), make_loader, valid_loader, {}),
    "workers": (partial(make_model, trainable=True), partial(make_loader, num_workers=2), valid_loader, {}),
    "accumulation": (make_model, make_loader, valid_loader, {"gradient_accumulation": 3, "grad_clip": 0.1}),
    "cached accumulation": (partial(make_model, CPU), make_loader, valid_loader, {"gradient_accumulation": 3}),
    "averaged": (partial(make_model, CPU), make_loader, valid_loader, {"ema": {"decay": 0.8}}),
    "hard classes": (partial(make_model, CPU), hard_classes, valid_loader, {}),
    "stream": (partial(make_model, xbm=False), stream, valid_loader, {}),
    "torch's own": (partial(make_model, CPU), partial(make_loader, shuffle=False, sampler=None), valid_loader, {}),
    "plain": (Scorer, plain_loader, plain_valid_loader, {}),
    "plain workers": (Scorer, partial(plain_loader, num_workers=2), None, {}),
    "plain generator": (Scorer, generator_loader, None, {}),
    "ranks": (partial(make_model, trainable=True), make_loader, valid_loader, {"gradient_accumulation": 2}),
    "updating": (Updating, plain_loader, plain_valid_loader, {"gradient_accumulation": 3}),
}


def torch_seeded():
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)


def train(kind, run_dir, epochs=3, callbacks=(), checkpoint=None, lines=None, expect=None, **training):
    """One run, seeded as any other of its kind; the model, and what was logged."""
    make, loader, valid, settings = KINDS[kind]
    torch_seeded()
    model = make()
    lines = lines or Lines()
    cfg = {
        "run_dir": str(run_dir),
        "training": {"device": "cpu", **settings, **training},
        "checkpoint": {"enable": checkpoint is not None, **(checkpoint or {})},
    }
    runner = Runner(model, epochs, loader(), valid and valid(), cfg=cfg, callbacks=list(callbacks), logger=lines)
    if expect is None:
        runner.fit()
    else:
        with pytest.raises(expect):
            runner.fit()
    return model, lines.figures


def assert_equal(one, two):
    """Bit for bit."""
    states = one[0].state_dict(), two[0].state_dict()
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        other = states[1][name]
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name
    assert one[1].keys() == two[1].keys()
    different = {name: (value, two[1][name]) for name, value in one[1].items() if value != two[1][name]}
    assert not different
