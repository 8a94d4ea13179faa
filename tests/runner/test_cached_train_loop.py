"""CachedTrainLoop takes the very steps of TrainLoop: weights, figures, hooks and checkpoints are equal bit for bit."""

import logging
from functools import partial

import pytest
from lightning.pytorch.callbacks import Callback

from simtrain import CacheConfig, CacheType, Runner, XbmConfig
from simtrain.data import (
    NoDuplicatesSampler,
    PairsSimilarityDataLoader,
)
from simtrain.errors import ConfigError
from simtrain.heads import SkipConnectionHead
from simtrain.losses import ContrastiveLoss, SupConLoss, TripletLoss
from simtrain.runner import CachedTrainLoop, TrainLoop
from simtrain.runner.cached_epoch_loop import PARTS
from tests.runner.loop_twins import (
    CPU,
    LOADERS,
    N,
    assert_same,
    groups,
    loader_of,
    run,
    schedule,
    slow,
)
from tests.training.models import BagEncoder, group_model, pair_model, pair_samples


def dropout_head(size):
    return SkipConnectionHead(size, dropout=0.2)


@pytest.mark.parametrize("name", ["in order", "workers", "PK", "batch sampler", *map(slow, LOADERS)])
def test_all_samplers_and_numbers_of_workers(name):
    assert_same(groups(head=dropout_head), LOADERS[name])


HARD, SEMI_HARD = TripletLoss(margin=0.3, mining="hard"), TripletLoss(mining="semi_hard")


XBM = XbmConfig(buffer_size=30, start_iteration=3)


@pytest.mark.parametrize(
    ("loss", "xbm"),
    [
        (HARD, None),
        (SupConLoss(), XBM),
        *(slow(loss, None) for loss in (SupConLoss(), SEMI_HARD)),
        *(slow(loss, XBM) for loss in (HARD, SEMI_HARD)),
    ],
)
def test_group_losses_with_and_without_a_memory(loss, xbm):
    assert_same(groups(loss=loss, xbm=xbm), LOADERS["PK"])


def test_pairs_without_duplicates():
    def loader():
        samples = pair_samples(N)
        return PairsSimilarityDataLoader(samples, batch_size=4, sampler=NoDuplicatesSampler(samples, batch_size=4))

    assert_same(partial(pair_model, cache=CPU), loader)


def test_triplets_of_unequal_lengths():
    assert_same(partial(pair_model, cache=CPU, loss=ContrastiveLoss()), partial(loader_of, "triplets", shuffle=True))
    assert_same(groups(), partial(loader_of, "triplets", shuffle=True))


@pytest.mark.parametrize(
    "training",
    [
        slow({"gradient_accumulation": 3}),
        slow({"grad_clip": 0.01}),
        {"gradient_accumulation": 3, "grad_clip": 0.01, "precision": "bf16-mixed"},
        slow({"precision": "bf16-mixed"}),
        {"ema": {"decay": 0.9}},
    ],
    ids=str,
)
def test_the_training_section(training):
    _, record = assert_same(
        groups(head=dropout_head, scheduler=schedule),
        LOADERS["shuffled"],
        valid=partial(loader_of, "groups", batch_size=11),
        training=training,
    )
    assert ("train_grad_norm" in record.seen[-1][2]) == ("grad_clip" in training)


def used_loop(model, loader, **training):
    class Watch(Callback):
        def on_train_start(self, trainer, module):
            self.kind = type(trainer.fit_loop.epoch_loop).__name__

    watch = Watch()
    Runner(model, 1, loader, cfg={"training": {"device": "cpu", **training}}, callbacks=[watch]).fit()
    return watch.kind


def test_it_is_chosen_by_itself_where_every_encoder_is_cached():
    assert used_loop(group_model(cache=CPU), LOADERS["shuffled"]()) == "CachedEpochLoop"
    assert used_loop(group_model(cache=CPU), LOADERS["shuffled"](), loop="trainer") == "ResumableEpochLoop"
    assert used_loop(group_model(), LOADERS["shuffled"]()) == "ResumableEpochLoop"
    trained = {"frozen": BagEncoder(), "trained": BagEncoder(trainable=True)}
    cache = CacheConfig(mapping={"frozen": CacheType.CPU, "trained": CacheType.NONE})
    assert used_loop(group_model(encoders=trained, cache=cache), LOADERS["shuffled"]()) == "ResumableEpochLoop"


def test_where_it_is_required_it_says_why_it_cannot_run():
    with pytest.raises(ConfigError, match=r"CachedTrainLoop cannot run this: not every encoder is cached.*'auto'"):
        Runner(group_model(), 1, LOADERS["shuffled"](), cfg={"training": {"loop": "cached"}}).fit()
    with pytest.raises(ConfigError, match=r"unknown training\.loop 'fast'"):
        Runner(group_model(), 1, cfg={"training": {"loop": "fast"}})


def test_another_lightning_is_trained_with_as_it_is_and_said_so(monkeypatch, caplog):
    monkeypatch.setitem(PARTS, "results", ("batch", "not_there"))
    with caplog.at_level(logging.WARNING, "simtrain"):
        assert used_loop(group_model(cache=CPU), LOADERS["shuffled"]()) == "ResumableEpochLoop"
    assert "CachedTrainLoop is not used, training is slower: the results of lightning" in caplog.text
    assert "has no not_there" in caplog.text


def test_a_loop_can_be_given_and_only_an_object_with_run_is_taken():
    class Counting(TrainLoop):
        runs = 0

        def run(self):
            self.runs += 1
            assert self.runner.model is model
            super().run()

    model, loop = group_model(cache=CPU), Counting()
    assert Runner(model, 1, LOADERS["shuffled"](), train_loop=loop).fit() is model
    assert loop.runs == 1
    assert isinstance(Runner(model, 1, LOADERS["shuffled"](), train_loop=CachedTrainLoop()).train_loop, CachedTrainLoop)
    with pytest.raises(ConfigError, match=r"train_loop should be an object with a method run\(\).*got str"):
        Runner(model, 1, LOADERS["shuffled"](), train_loop="fast")


def test_nn_modules_are_left_without_anything_of_the_loop():
    model = run("cached", groups(), LOADERS["shuffled"])
    assert model._log_later is None
