"""Training keeps a sampler of hard classes up to date, by itself."""

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from simtrain import CacheConfig, Runner, TrainableModel
from simtrain.data import (
    GroupSimilarityDataLoader,
    HardClassSampler,
    PairsSimilarityDataLoader,
    SimilarityGroupSample,
    SimilarityPairSample,
)
from simtrain.encoders import ModuleEncoder, PrecomputedEncoder
from simtrain.errors import ConfigError, DataError
from simtrain.heads import LinearHead
from simtrain.losses import ContrastiveLoss, SupConLoss

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*val_dataloader.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`.*:UserWarning"),
]

POINTS = torch.randn(48, 5, generator=torch.Generator().manual_seed(0))
SAMPLES = [SimilarityGroupSample(point, 10 * (number % 8)) for number, point in enumerate(POINTS)]
GROUPS = torch.tensor([sample.group for sample in SAMPLES])


class Recording(TrainableModel):
    """Notes the groups of each batch, and the embeddings that each epoch begins with."""

    def __init__(self, **words):
        torch.manual_seed(1)
        encoder = ModuleEncoder(
            nn.Sequential(nn.Linear(5, 6), nn.Dropout(0.5)), 6, trainable=words.pop("trained", False)
        )
        super().__init__(
            encoders=encoder,
            head=lambda size: LinearHead(size, 3),
            loss=SupConLoss(),
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.5),
            **words,
        )
        self.seen, self.begun = [], []

    def on_train_epoch_start(self):
        super().on_train_epoch_start()
        assert self.training
        with torch.no_grad():
            self.begun.append(torch.from_numpy(self.model.encode(list(POINTS))))

    def process_results(self, embeddings, targets, batch_idx, stage, **kwargs):
        self.seen.append(targets["groups"].tolist())


def make_loader(workers=0, **words):
    torch.manual_seed(2)
    sampler = HardClassSampler(GROUPS, batch_size=8, per_group=4, seed=5, **words)
    return GroupSimilarityDataLoader(SAMPLES, batch_size=8, sampler=sampler, num_workers=workers)


def trainer(epochs=3, callbacks=()):
    words = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", enable_model_summary=False, callbacks=list(callbacks), **words
    )


def by_hand(begun, **words):
    """Batches of a sampler that is updated with these embeddings before each epoch."""
    loader = make_loader(by_training=False, **words)
    batches = []
    for embeddings in begun:
        loader.sampler.update(embeddings)
        batches += [batch.targets["groups"].tolist() for batch in loader]
    return batches


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("cache", [None, CacheConfig("cpu")])
@pytest.mark.parametrize("way", ["trainer", "runner"])
def test_each_epoch_is_sampled_by_the_embeddings_that_it_begins_with(way, cache, workers):
    model, loader = Recording(cache=cache), make_loader(workers)
    if way == "runner":
        Runner(model, 3, loader, cfg={"training": {"loop": "trainer"}}).fit()
    else:
        trainer().fit(model, loader)
    assert len(model.begun) == 3
    assert not torch.allclose(model.begun[0], model.begun[2])
    assert model.seen == by_hand(model.begun)
    assert model.seen != [batch.targets["groups"].tolist() for batch in make_loader() for _ in range(3)]


def test_the_fast_loop_samples_alike():
    slow, fast = Recording(cache=CacheConfig("cpu")), Recording(cache=CacheConfig("cpu"))
    Runner(slow, 3, make_loader(), cfg={"training": {"loop": "trainer"}}).fit()
    Runner(fast, 3, make_loader()).fit()
    for name, value in slow.model.head.state_dict().items():
        assert torch.equal(fast.model.head.state_dict()[name], value)


def test_a_trained_encoder_is_embedded_in_eval_mode_and_draws_no_random_number():
    states = []
    for words in ({}, {"by_training": False}):
        model = Recording(trained=True)
        states.append(torch.manual_seed(7).get_state())
        trainer(1, [Rng(states)]).fit(model, make_loader(**words))
    # Beginning of the run, and of its first step: the latter is the same with the update and without it.
    assert torch.equal(states[1], states[3])


class Rng(Callback):
    def __init__(self, states):
        self.states = states

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == 0:
            self.states.append(torch.get_rng_state())


def test_a_few_items_of_each_class_may_do():
    loader = make_loader(embed_per_group=2)
    items = loader.sampler.items_to_embed()
    assert torch.bincount(GROUPS[items] // 10).tolist() == [2] * 8
    assert (loader.sampler.items_to_embed() == items).all()
    model = Recording()
    trainer(2).fit(model, loader)
    sampler = make_loader(by_training=False, embed_per_group=2).sampler
    expected = []
    for embeddings in model.begun:
        items = sampler.items_to_embed()
        sampler.update(embeddings[items], sampler.labels_of(items))
        expected += [GROUPS[list(sampler)].split(8)]
    assert model.seen == [batch.tolist() for epoch in expected for batch in epoch]
    with pytest.raises(ConfigError, match="embed_per_group should be a positive integer, or None for all, got 0"):
        make_loader(embed_per_group=0)


class StopAfter(Callback):
    def __init__(self, steps, path):
        self.steps, self.path = steps, path

    def on_train_batch_end(self, trainer, module, *rest):
        if trainer.global_step == self.steps:
            trainer.save_checkpoint(self.path)
            raise StopError


class StopError(Exception):
    pass


@pytest.mark.parametrize("cache", [None, CacheConfig("cpu")])
def test_a_stopped_run_goes_on_with_the_batches_that_it_would_have_had(tmp_path, cache):
    whole = Recording(cache=cache)
    trainer().fit(whole, make_loader())
    per_epoch = len(whole.seen) // 3
    for steps in (1, per_epoch - 1, per_epoch, per_epoch + 2):
        stopped, resumed = Recording(cache=cache), Recording(cache=cache)
        with pytest.raises(StopError):
            trainer(3, [StopAfter(steps, tmp_path / "run.ckpt")]).fit(stopped, make_loader())
        trainer().fit(resumed, make_loader(), ckpt_path=tmp_path / "run.ckpt")
        assert stopped.seen + resumed.seen == whole.seen, steps
        for name, value in whole.model.head.state_dict().items():
            assert torch.equal(resumed.model.head.state_dict()[name], value)


def test_samples_of_another_kind_are_refused():
    pairs = [SimilarityPairSample(POINTS[number], POINTS[number + 1]) for number in range(16)]
    sampler = HardClassSampler([number % 4 for number in range(16)], batch_size=4, per_group=2)
    model = TrainableModel(
        encoders=PrecomputedEncoder(5), head=lambda size: LinearHead(size, 3), loss=ContrastiveLoss()
    )
    with pytest.raises(DataError, match="a HardClassSampler is for single items with groups, but the loader's batches"):
        Runner(model, 1, PairsSimilarityDataLoader(pairs, batch_size=4, sampler=sampler)).fit()
