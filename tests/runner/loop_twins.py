"""Models trained by Lightning's loop and by the cached one, and what is to be equal in both."""

from functools import partial, partialmethod

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import BatchSampler, RandomSampler

from simtrain import CacheConfig, CacheType, Runner
from simtrain.data import (
    GroupSimilarityDataLoader,
    PairsSimilarityDataLoader,
    PKSampler,
    SimilarityTripletSample,
    TripletSimilarityDataLoader,
)
from simtrain.runner.lean_step import LeanStep
from tests.training.models import group_model, group_samples, pair_samples

CPU = CacheConfig(CacheType.CPU)


slow = partial(pytest.param, marks=pytest.mark.slow)


N = 44  # in batches of 4: 11 an epoch, a short last window of accumulation


class Record(Callback):
    """What is to be seen at each hook: counters, figures, outputs."""

    def __init__(self):
        self.seen = []

    def note(self, name, trainer, *more):
        progress = trainer.fit_loop.epoch_loop.batch_progress
        counts = (trainer.global_step, trainer.current_epoch, progress.current.ready, progress.total.completed)
        figures = {key: float(value) for key, value in sorted(trainer.callback_metrics.items())}
        self.seen.append((name, counts, figures, trainer.progress_bar_metrics.copy(), *more))

    def on_train_epoch_end(self, trainer, module):
        self.note("train epoch end", trainer)

    def on_validation_end(self, trainer, module):
        self.note("validation end", trainer)

    def on_train_end(self, trainer, module):
        self.note("train end", trainer)


class RecordBatches(Record):
    """The same with all hooks of a batch, their arguments and the weights' gradients."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.note("batch start", trainer, batch_idx, [part.tolist() for part in batch[0].values()])

    def on_before_zero_grad(self, trainer, module, optimizer):
        self.note("zero grad", trainer)

    def on_before_backward(self, trainer, module, loss):
        self.note("before backward", trainer, float(loss.detach()))

    def on_after_backward(self, trainer, module):
        self.note("after backward", trainer, [float(p.grad.sum()) for p in module.parameters() if p.grad is not None])

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.note("before step", trainer)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        shown = {key: float(value) for key, value in outputs.items()}
        self.note("batch end", trainer, batch_idx, shown, trainer.fit_loop.epoch_loop._batches_that_stepped)


def loader_of(kind, **options):
    options = {"batch_size": 4, **options}
    if kind == "pairs":
        return PairsSimilarityDataLoader(pair_samples(N), **options)
    if kind == "triplets":
        pairs = pair_samples(N)
        samples = [
            SimilarityTripletSample(one.obj_a, one.obj_b, [two.obj_b] * (1 + place % 2))
            for place, (one, two) in enumerate(zip(pairs, reversed(pairs), strict=True))
        ]
        return TripletSimilarityDataLoader(samples, **options)
    return GroupSimilarityDataLoader(group_samples(N, 8), **options)


def run(loop, make_model, make_loader, epochs=2, valid=None, training=None, callbacks=(), **options):
    torch.manual_seed(5)
    model = make_model()
    torch.manual_seed(6)
    cfg = {"training": {"loop": loop, "device": "cpu", **(training or {})}}
    runner = Runner(model, epochs, make_loader(), valid and valid(), cfg=cfg, callbacks=callbacks, **options)
    runner.fit()
    return model


def noted_step(step, original, taken, loop, batch):
    taken.append(loop)
    original(step, batch)


def assert_same(make_model, make_loader, record=Record, lean=True, **options):
    """Both loops leave the same weights, optimizer-step counts and figures; the cached one did take lean steps."""
    taken = []
    models, records = {}, {}
    for loop in ("trainer", "cached"):
        records[loop] = record()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LeanStep, "_train_on", partialmethod(noted_step, LeanStep._train_on, taken, loop))
            models[loop] = run(loop, make_model, make_loader, callbacks=[records[loop]], **options)
    assert set(taken) == ({"cached"} if lean else set())
    states = [models[loop].state_dict() for loop in ("trainer", "cached")]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, states[1][name]), name
        else:
            assert value == states[1][name], name
    assert records["trainer"].seen == records["cached"].seen
    return models["cached"], records["cached"]


def groups(**parts):
    return partial(group_model, cache=CPU, **parts)


def pk(batch_size=4):
    samples = group_samples(N, 8)
    sampler = PKSampler([sample.group for sample in samples], batch_size=batch_size, per_group=2)
    return GroupSimilarityDataLoader(samples, batch_size=batch_size, sampler=sampler)


LOADERS = {
    "in order": partial(loader_of, "groups"),
    "shuffled": partial(loader_of, "groups", shuffle=True),
    "drop_last": partial(loader_of, "groups", shuffle=True, batch_size=6, drop_last=True),
    "workers": partial(loader_of, "groups", shuffle=True, num_workers=2),
    "PK": pk,
    "torch's own": lambda: loader_of("groups", sampler=RandomSampler(range(N))),
    "batch sampler": lambda: GroupSimilarityDataLoader(
        group_samples(N, 8), batch_sampler=BatchSampler(RandomSampler(range(N)), 5, False)
    ),
}


def schedule(optimizer, total):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=total)
