from __future__ import annotations

import multiprocessing
import pickle
import random
from collections import Counter
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simtrain import Runner, SimilarityModel, TrainableModel
from simtrain.cache import CacheConfig, CachedModel
from simtrain.cache.item_keys import item_keys
from simtrain.cache.views import ViewItems, Views, drawn_rows, own_rows, seeded, view_keys
from simtrain.data import (
    GroupSimilarityDataLoader,
    PairsSimilarityDataLoader,
    SimilarityGroupSample,
    SimilarityPairSample,
    SimilarityTripletSample,
    TripletSimilarityDataLoader,
)
from simtrain.data.sides import DOCUMENT, QUERY, Prompts
from simtrain.errors import CacheError, ConfigError
from simtrain.heads import EmptyHead, SkipConnectionHead
from simtrain.losses import MultipleNegativesRankingLoss, TripletLoss
from tests.training.models import ENCODED, words
from tests.training.models import BagEncoder as UnseededBag

QUIET = "ignore:.*(many workers|val_dataloader|LeafSpec|eval mode at the start|exists and is not empty).*"


def BagEncoder(*args: Any, **options: Any) -> UnseededBag:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return UnseededBag(*args, **options)


def shuffled(text: str) -> str:
    """Some random letters before a text, from all three generators."""
    drawn = (random.randrange(26), np.random.randint(26), int(torch.randint(26, ())))
    return "".join(chr(97 + letter) for letter in drawn) + text


def doubled(text: str) -> str:
    return text + random.choice("xyz")


def views(k: int = 3, **options: Any) -> CacheConfig:
    return CacheConfig(views=k, augment=shuffled, **options)


def model(config: CacheConfig | None, loss: Any = None, **encoders: Any) -> TrainableModel:
    torch.manual_seed(0)
    return TrainableModel(
        encoders=encoders or {"bag": BagEncoder()},
        head=SkipConnectionHead,
        loss=loss or MultipleNegativesRankingLoss(),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        cache=config,
    )


def expected(encoder: Any, text: str, view: int, seed: int = 0) -> torch.Tensor:
    """The embedding of a view, made here from its key."""
    key = view_keys(item_keys([text]), Views(view + 1, shuffled, seed).prefix, view + 1)[view].tobytes()
    with seeded(key):
        version = shuffled(text)
    with torch.no_grad():
        return encoder.eval()(encoder.get_collate_fn()([version]))[0]


def pairs(n: int = 10) -> list[SimilarityPairSample]:
    made = words(2 * n)
    return [SimilarityPairSample(a, b) for a, b in zip(made[:n], made[n:], strict=True)]


@pytest.mark.parametrize("kind", ["cpu", "disk"])
def test_views_are_the_encoder_over_augmented_items(tmp_path: Any, kind: str) -> None:
    encoder, items = BagEncoder(), words(6)
    made = SimilarityModel({"bag": encoder}, EmptyHead(8)).eval()
    cached = CachedModel(made, views(3, cache_type=kind, save_dir=tmp_path if kind == "disk" else None, seed=5))
    cached.open()
    cached.fill(items, training=True)
    table = cached.training_collate.collate_fns["bag"](items)
    assert table.shape == (6, 5)
    store = cached._caches["bag"].store
    for number, text in enumerate(items):
        plain = encoder(encoder.get_collate_fn()([text]))[0]
        torch.testing.assert_close(store.gather(table[number, 1:2])[0], plain, atol=1e-5, rtol=1e-5)
        for view in range(3):
            got = store.gather(table[number, 2 + view].reshape(1))[0]
            torch.testing.assert_close(got, expected(encoder, text, view, seed=5), atol=1e-5, rtol=1e-5)


def test_a_refill_gives_the_same_whatever_the_order_workers_and_batches() -> None:
    items, found = words(9), []
    for order, workers, size in ((1, 0, 64), (-1, 2, 2)):
        made = SimilarityModel({"bag": BagEncoder()}, EmptyHead(8)).eval()
        cached = CachedModel(made, views(batch_size=size, num_workers=workers))
        cached.open()
        cached.fill(items[::order], training=True)
        table = cached.training_collate.collate_fns["bag"](items)
        found.append(torch.stack([cached._caches["bag"].store.gather(table[:, 1 + view]) for view in range(4)]))
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-6)
    assert len(found[0].flatten(0, 1).unique(dim=0)) > 30


def test_random_states_are_left_alone() -> None:
    made = CachedModel(SimilarityModel({"bag": BagEncoder()}, EmptyHead(8)).eval(), views())
    made.open()
    states = None, pickle.dumps(np.random.get_state()), torch.get_rng_state()
    made.fill(words(5), training=True)
    python = random.getstate()  # not compared around the filling: beartype draws from it
    with seeded(bytes(16)):
        shuffled("a")
    assert random.getstate() == python
    assert pickle.dumps(np.random.get_state()) == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_each_view_is_drawn_equally_often_and_reproducibly() -> None:
    k, n = 4, 500
    salts = torch.from_numpy(np.random.default_rng(0).integers(-(2**63), 2**63, (n, 1)))
    table = torch.cat([salts, torch.arange(5 * n).view(n, 5)], dim=1)
    drawn = torch.stack([drawn_rows(table, 0, epoch) for epoch in range(8)])
    counts = torch.stack([(drawn == table[:, 2 + view]).sum(0) for view in range(k)])
    assert counts.tolist() == [[2] * n] * k  # in 4 epochs each view once
    first = Counter((drawn[0] % 5).tolist())
    assert all(abs(first[view + 1] - n / k) < 50 for view in range(k))  # chi-square would allow 40 by far
    assert torch.equal(drawn[3], drawn_rows(table, 0, 3))
    assert not torch.equal(drawn[0], drawn_rows(table, 1, 0))
    # One item's draw says nothing about another's, nor one cycle's about the next.
    assert 0.15 < float((drawn[0] % 5 == drawn[4] % 5).float().mean()) < 0.35


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 7), st.integers(0, 2**40), st.integers(0, 1000), st.integers(-(2**63), 2**63 - 1))
def test_a_draw_is_one_of_the_views(count: int, seed: int, epoch: int, salt: int) -> None:
    table = torch.tensor([[salt, 7, *range(100, 100 + count)]])
    assert 100 <= int(drawn_rows(table, seed, epoch)) < 100 + count
    cycle = {int(drawn_rows(table, seed, count * epoch + i)) for i in range(count)}
    assert cycle == set(range(100, 100 + count))
    assert own_rows(table).tolist() == [7]


LOADERS = {
    "pairs": (lambda: PairsSimilarityDataLoader(pairs(), batch_size=4, shuffle=True), MultipleNegativesRankingLoss),
    "groups": (
        lambda: GroupSimilarityDataLoader(
            [SimilarityGroupSample(text, i % 4) for i, text in enumerate(words(16))], batch_size=8, shuffle=True
        ),
        TripletLoss,
    ),
    "triplets": (
        lambda: TripletSimilarityDataLoader(
            [SimilarityTripletSample(*words(3, i)[:2], words(2, i + 50)) for i in range(8)], batch_size=4, shuffle=True
        ),
        TripletLoss,
    ),
}


@pytest.mark.filterwarnings(QUIET)
@pytest.mark.parametrize("way", ["runner", "trainer", "alone", "alone unprepared"])
@pytest.mark.parametrize("kind", LOADERS)
def test_training_sees_views_of_the_epoch_and_validation_the_items(kind: str, way: str) -> None:
    make_loader, loss = LOADERS[kind]
    seen: list[tuple[int, torch.Tensor]] = []
    validated: list[torch.Tensor] = []

    class Watched(TrainableModel):
        def forward(self, features: Any) -> Any:
            epoch = self.current_epoch if self._trainer is not None else -1
            rows = features["bag"]
            (seen if self.training else validated).extend([(epoch, rows)] if self.training else [rows])
            return super().forward(features)

    torch.manual_seed(0)
    made = Watched(encoders={"bag": BagEncoder()}, head=SkipConnectionHead, loss=loss(), cache=views(2))
    loader, valid = make_loader(), make_loader()
    if way == "runner":
        Runner(made, epochs=2, train_data_loader=loader, valid_data_loader=valid).fit()
    elif way == "trainer":
        trainer = lightning.Trainer(
            max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, num_sanity_val_steps=0
        )
        trainer.fit(made, loader, valid)
    else:
        batches = made.setup_dataloader(loader) if way == "alone" else loader
        for epoch in range(2):
            made.cached.epoch = epoch
            for batch in batches:
                made.train_step(batch)
        made.eval()
        for batch in made.setup_dataloader(valid, training=False):
            made.valid_step(batch)
    items = [item for batch in make_loader() for item in batch.objects]
    table = made.cached.training_collate.collate_fns["bag"](items)
    by_epoch = torch.cat([rows for _, rows in seen]).view(2, -1)
    for epoch in range(2):
        assert Counter(by_epoch[epoch].tolist()) == Counter(drawn_rows(table, 0, epoch).tolist())
    assert set(torch.cat([own_rows(rows) for rows in validated]).tolist()) == set(own_rows(table).tolist())


@pytest.mark.filterwarnings(QUIET)
def test_a_run_resumed_in_mid_epoch_goes_on_with_the_same_views(tmp_path: Any) -> None:
    def fit(**words_: Any) -> dict[str, torch.Tensor]:
        made = model(views(3))
        torch.manual_seed(0)
        loader = PairsSimilarityDataLoader(pairs(12), batch_size=4, shuffle=True)
        checkpoint = words_.pop("ckpt", None)
        saving = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=4, save_top_k=-1)
        trainer = lightning.Trainer(
            max_epochs=3, logger=False, enable_progress_bar=False, callbacks=[saving], enable_model_summary=False
        )
        trainer.fit(made, made.setup_dataloader(loader), ckpt_path=checkpoint, weights_only=None)
        return made.state_dict()

    whole = fit()
    resumed = fit(ckpt=tmp_path / "step=4.ckpt")  # the second of three batches of the second epoch is next
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_trainable_encoders_beside_and_workers() -> None:
    made = model(views(2), bag=BagEncoder(), moving=BagEncoder(4, trainable=True))
    prepared = made.setup_dataloader(PairsSimilarityDataLoader(pairs(), batch_size=5, num_workers=2))
    features, _ = next(iter(prepared))
    assert features["bag"].shape == (10, 4)
    assert features["moving"].shape == (10, 26)
    assert torch.isfinite(made.train_step(next(iter(prepared)))["loss"])


def test_encoding_sees_the_items_themselves() -> None:
    made = SimilarityModel({"bag": BagEncoder()}, EmptyHead(8)).eval()
    cached = CachedModel(made, views())
    cached.open()
    cached.fill(words(5), training=True)
    ENCODED.clear()
    np.testing.assert_allclose(cached.encode(words(5)), made.encode(words(5)), atol=1e-6)
    assert ENCODED == [5]  # by the model without a cache


def test_only_what_changed_is_encoded_again(tmp_path: Any) -> None:
    def filled(**options: Any) -> int:
        made = SimilarityModel({"bag": BagEncoder()}, EmptyHead(8)).eval()
        cached = CachedModel(made, CacheConfig("disk", save_dir=tmp_path, **options))
        cached.open()
        return cached.fill(words(5), training=True)["bag"].n_encoded

    assert filled() == 5
    assert filled(views=3, augment=shuffled) == 15
    assert filled(views=3, augment=shuffled) == 0
    assert filled(views=5, augment=shuffled) == 10
    assert filled(views=3, augment=doubled) == 15  # another function
    assert filled(views=3, augment=shuffled, seed=1) == 15


def test_items_are_augmented_before_they_are_marked_by_their_side() -> None:
    made: list[str] = []

    def augment(text: str) -> str:
        made.append(text)
        return text.upper()

    mark = Prompts(query="q: ", document="d: ")
    marked = mark(["a", "b"], [QUERY, DOCUMENT])
    items = ViewItems(["a", "b"], marked, [QUERY, DOCUMENT], mark, Views(1, augment))
    items.keys(None)
    assert [items[i] for i in range(4)] == ["q: a", "d: b", "q: A", "d: B"]
    assert made == ["a", "b"]


def test_each_encoder_may_have_its_own_views() -> None:
    config = CacheConfig(views=2, augment={"one": shuffled})
    made = model(config, one=BagEncoder(), other=BagEncoder())
    features, _ = next(iter(made.setup_dataloader(PairsSimilarityDataLoader(pairs(), batch_size=5))))
    assert features["one"].shape == (10, 4)
    assert features["other"].shape == (10,)


def test_one_view_without_augment_is_the_cache_as_ever() -> None:
    made = model(CacheConfig())
    features, _ = next(iter(made.setup_dataloader(PairsSimilarityDataLoader(pairs(), batch_size=5))))
    assert features["bag"].shape == (10,)
    assert made.cached.drawn(features, True) is features


def test_a_loader_for_validation_is_not_trained_on() -> None:
    made = model(views())
    prepared = made.setup_dataloader(PairsSimilarityDataLoader(pairs(), batch_size=5), training=False)
    assert made.cached.reports["bag"].n_encoded == 20
    with pytest.raises(CacheError, match="prepared with training=False has no views to train on"):
        made.train_step(next(iter(prepared)))


def test_a_loop_of_ones_own_draws_anew_for_each_batch() -> None:
    made = model(views(2))
    batch, losses = pairs(4), []
    for _ in range(4):
        losses.append(made.train_step(batch)["loss"].item())
    assert len(set(losses)) > 1


@pytest.mark.parametrize(
    ("words_", "message"),
    [
        ({"views": 4}, r"views=4 needs a function .* set CacheConfig\(augment=\.\.\.\)"),
        ({"views": 0, "augment": shuffled}, "views=.* at least 1, got 0"),
        ({"views": 2, "augment": 3}, "augment must be a function or {encoder name: function}, got 3"),
        ({"views": 2, "augment": "shuffel"}, "unknown augment function type 'shuffel'"),
        ({"views": 2, "augment": shuffled, "seed": -1}, "seed=.* at least 0, got -1"),
    ],
)
@pytest.mark.usefixtures("without_type_checks")
def test_wrong_settings_are_errors(words_: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CacheConfig(**words_)


def test_augment_for_what_is_not_cached_is_an_error() -> None:
    with pytest.raises(ConfigError, match="'bag' is not; cache it, or augment in the data set"):
        model(CacheConfig(augment=shuffled), bag=BagEncoder(trainable=True))
    with pytest.raises(ConfigError, match=r"CacheConfig\(augment=\.\.\.\) names no encoder 'bags'"):
        model(CacheConfig(augment={"bags": shuffled}))


def fill_on_disk(folder: Path, reverse: bool) -> None:
    made = SimilarityModel({"bag": BagEncoder()}, EmptyHead(8)).eval()
    cached = CachedModel(made, views(cache_type="disk", save_dir=folder, batch_size=4))
    cached.open()
    cached.fill(words(20)[:: -1 if reverse else 1], training=True)


def test_two_processes_fill_one_cache_with_the_same_views(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=fill_on_disk, args=(tmp_path, reverse)) for reverse in (False, True)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
        assert process.exitcode == 0
    encoder = BagEncoder()
    made = SimilarityModel({"bag": encoder}, EmptyHead(8)).eval()
    cached = CachedModel(made, views(cache_type="disk", save_dir=tmp_path))
    cached.open()
    assert cached.fill(words(20), training=True)["bag"].n_encoded == 0
    store = cached._caches["bag"].store
    assert len(store) == 80
    table = cached.training_collate.collate_fns["bag"](words(20))
    for number in (0, 7, 19):
        got = store.gather(table[number, 3:4])[0]
        torch.testing.assert_close(got, expected(encoder, words(20)[number], 1), atol=1e-5, rtol=1e-5)
