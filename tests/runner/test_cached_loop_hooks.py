"""Under CachedTrainLoop, hooks, steps and optimizers of the user are called as Lightning calls them."""

import warnings
from functools import partial

import pytest
import torch

from simtrain import AttachedMetric, CacheConfig, CacheType, TrainableModel
from simtrain.heads import SkipConnectionHead
from simtrain.losses import SupConLoss
from simtrain.metrics import RetrievalPrecision
from simtrain.training.cached_step import CachedStep
from tests.runner.loop_twins import CPU, LOADERS, RecordBatches, assert_same, groups, loader_of, pk, schedule
from tests.training.models import BagEncoder, group_model


@pytest.mark.parametrize("window", [1, 3])
def test_hooks_of_each_batch_are_called_as_lightning_calls_them(window):
    _, record = assert_same(
        groups(scheduler=schedule),
        LOADERS["shuffled"],
        record=RecordBatches,
        valid=partial(loader_of, "groups", batch_size=11),
        training={"gradient_accumulation": window, "grad_clip": 0.1},
    )
    names = [seen[0] for seen in record.seen]
    assert names.count("batch end") == 22
    assert names.count("before step") == 2 * -(-11 // window)
    assert names.count("validation end") == 2


class OwnHooks(TrainableModel):
    """A model that watches its own steps, logs from them and adds figures."""

    moved = 0

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.log("own", float(batch_idx + 100 * self.moved), prog_bar=True)

    def train_step(self, data_batch, *args, **kwargs):
        self.log("inside", 2.0, on_step=True, on_epoch=True, batch_size=3)
        return {**super().train_step(data_batch, *args, **kwargs), "twice": torch.tensor(2.0)}

    def on_after_batch_transfer(self, batch, dataloader_idx):
        self.moved += self.trainer.training
        return batch


def test_hooks_of_the_model_and_metrics():
    def model():
        metric = AttachedMetric("precision", RetrievalPrecision(k=1))
        return OwnHooks(encoders=BagEncoder(), head=SkipConnectionHead, loss=SupConLoss(), cache=CPU, metrics=metric)

    _, record = assert_same(model, LOADERS["PK"], valid=pk, record=RecordBatches)
    assert {"own", "inside_epoch", "train_twice", "train_loss"} <= record.seen[-1][2].keys()


@pytest.mark.parametrize("own", [None, "compute_loss", "process_results", "train_step", "hook", "views"])
def test_the_quick_step_stands_in_for_the_usual_one_only(own):
    seen, quick = [], []

    def model():
        cache = CPU if own != "views" else CacheConfig(CacheType.CPU, views=2, augment=str.upper)
        made = group_model(cache=cache)
        made.process_results = lambda *args, **kwargs: seen.append(1)
        if own == "compute_loss":
            usual = made.compute_loss
            made.compute_loss = lambda *args: {**usual(*args), "more": torch.tensor(1.0)}
        elif own == "train_step":
            usual = made.train_step
            made.train_step = lambda batch, *args, **kwargs: usual(batch, *args, **kwargs)
        elif own == "hook":
            made.model.register_forward_hook(lambda *args: None)
            made.register_forward_hook(lambda *args: seen.append(2))
        return made

    with pytest.MonkeyPatch.context() as patch:
        call = CachedStep.__call__
        patch.setattr(CachedStep, "__call__", lambda *args: quick.append(1) or call(*args))
        assert_same(model, LOADERS["shuffled"])
    assert bool(quick) == (own in (None, "compute_loss", "process_results"))
    assert seen.count(1) == 2 * 22
    assert seen.count(2) == (2 * 22 if own == "hook" else 0)


def test_a_step_that_leaves_a_batch_out():
    class Skipping(TrainableModel):
        def train_step(self, data_batch, batch_idx=0, **kwargs):
            return None if batch_idx == 4 else super().train_step(data_batch, **kwargs)

    def model():
        return Skipping(encoders=BagEncoder(), head=SkipConnectionHead, loss=SupConLoss(), cache=CPU)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*returned `None`.*")
        assert_same(model, LOADERS["PK"])


class OwnStep(TrainableModel):
    def optimizer_step(self, *args, **kwargs):
        self.own_steps = getattr(self, "own_steps", 0) + 1
        return super().optimizer_step(*args, **kwargs)


def test_a_model_with_its_own_optimizer_step_gets_lightnings():
    def model():
        return OwnStep(encoders=BagEncoder(), head=SkipConnectionHead, loss=SupConLoss(), cache=CPU)

    trained, _ = assert_same(model, LOADERS["shuffled"], lean=False)
    assert trained.own_steps == 22


def test_an_optimizer_that_calls_the_step_several_times():
    def lbfgs(parameters):
        return torch.optim.LBFGS(parameters, lr=0.1, max_iter=3)

    assert_same(groups(optimizer=lbfgs), LOADERS["shuffled"], epochs=1)
