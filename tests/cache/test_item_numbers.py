"""Items without content: known by their number in memory, refused by caches that outlive the process."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from simtrain import Runner, TrainableModel
from simtrain.cache import CacheConfig
from simtrain.cache.item_numbers import DataSources
from simtrain.data import (
    GroupSimilarityDataLoader,
    PairsSimilarityDataLoader,
    SimilarityGroupSample,
    SimilarityPairSample,
    SimilarityTripletSample,
    TripletSimilarityDataLoader,
)
from simtrain.encoders import Encoder
from simtrain.errors import CacheError
from simtrain.heads import SkipConnectionHead
from simtrain.losses import MultipleNegativesRankingLoss, TripletLoss
from tests.training.models import count_letters


class Thing:
    """An object of which only its own code knows what it is."""

    def __init__(self, text: str) -> None:
        self._text = text


@pytest.fixture
def encoded() -> Iterator[list[int]]:
    """Size of each batch of a frozen encoder. From outside: what an encoder refers to is its identity."""
    batches: list[int] = []

    def count(module: nn.Module, _: Any, embeddings: torch.Tensor) -> None:
        if type(module) is ThingEncoder:
            batches.append(len(embeddings))

    handle = torch.nn.modules.module.register_module_forward_hook(count)
    yield batches
    handle.remove()


class ThingEncoder(Encoder):
    """Embeds things by their texts."""

    trainable = False
    embedding_size = 8

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(26, 8)
        with torch.no_grad():
            self.linear.weight.copy_(torch.randn(8, 26, generator=torch.Generator().manual_seed(7)))
            self.linear.bias.zero_()

    def get_collate_fn(self) -> Any:
        return texts_of

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.linear(batch)


class TrainedThings(ThingEncoder):
    trainable = True


def texts_of(things: list[Thing]) -> torch.Tensor:
    return count_letters([thing._text for thing in things])


class Things(Dataset):
    """Makes its objects anew at each reading, as a data set of files does."""

    def __init__(self, kind: str, n: int, first: int = 0) -> None:
        self.kind, self.n, self.first = kind, n, first

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, row: int) -> Any:
        number = self.first + row
        if self.kind == "groups":
            return SimilarityGroupSample(thing("item", number), number % 3)
        if self.kind == "pairs":
            return SimilarityPairSample(thing("query", number), thing("document", number))
        negatives = [thing(f"other {place}", number) for place in range(1 + number % 2)]
        return SimilarityTripletSample(thing("anchor", number), thing("positive", number), negatives)


def thing(word: str, number: int) -> Thing:
    return Thing(f"{word} {chr(97 + number % 26)}{chr(97 + number // 26)}")


LOADERS = {
    "groups": GroupSimilarityDataLoader,
    "pairs": PairsSimilarityDataLoader,
    "triplets": TripletSimilarityDataLoader,
}


def model(cache: CacheConfig | None, kind: str, **encoders: Encoder) -> TrainableModel:
    torch.manual_seed(0)
    return TrainableModel(
        encoders=encoders or {"thing": ThingEncoder()},
        head=SkipConnectionHead,
        loss=TripletLoss(margin=0.5) if kind == "groups" else MultipleNegativesRankingLoss(),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        cache=cache,
    )


def train(kind: str, workers: int, cache: CacheConfig | None, **encoders: Encoder) -> tuple[TrainableModel, Any]:
    trained = model(cache, kind, **encoders)
    torch.manual_seed(2)
    data = {"train": Things(kind, 13), "valid": Things(kind, 7, first=40)}
    loaders = {
        stage: LOADERS[kind](part, batch_size=4, shuffle=stage == "train", num_workers=workers)
        for stage, part in data.items()
    }
    runner = Runner(
        trained,
        2,
        loaders["train"],
        loaders["valid"],
        cfg={"training": {"device": "cpu", "progress_bar": False}},
    )
    runner.fit()
    return trained, runner.valid()


@pytest.mark.parametrize(("kind", "workers"), [("groups", 0), ("pairs", 0), ("pairs", 2), ("triplets", 0)])
def test_training_and_validation_equal_those_without_a_cache(kind: str, workers: int, encoded: list[int]) -> None:
    plain, expected = train(kind, workers, None)
    encoded.clear()
    cached, figures = train(kind, workers, CacheConfig("cpu"))
    for ours, theirs in zip(cached.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert figures["validation_loss"] == pytest.approx(expected["validation_loss"], rel=1e-5)
    n_items = sum(len(items(part)) for part in (Things(kind, 13), Things(kind, 7, 40)))
    assert sum(encoded) == n_items  # once each, over two epochs and three validations


def items(data: Things) -> list[Any]:
    samples = [data[row] for row in range(len(data))]
    return LOADERS[data.kind].layout.objects(samples)


@pytest.mark.parametrize(("kind", "workers"), [("pairs", 0), ("triplets", 2)])
def test_beside_a_trained_encoder_items_keep_their_numbers(kind: str, workers: int, encoded: list[int]) -> None:
    runs = []
    for cache in (None, CacheConfig("cpu")):
        encoded.clear()
        runs.append(train(kind, workers, cache, moving=TrainedThings(), thing=ThingEncoder()))
    for ours, theirs in zip(runs[0][0].parameters(), runs[1][0].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert runs[0][1]["validation_loss"] == pytest.approx(runs[1][1]["validation_loss"], rel=1e-5)
    assert sum(encoded) == sum(len(items(part)) for part in (Things(kind, 13), Things(kind, 7, 40)))


def test_two_data_sets_do_not_mix_and_one_is_encoded_once() -> None:
    made = model(CacheConfig("cpu"), "groups")
    loaders = [GroupSimilarityDataLoader(Things("groups", 6, first), batch_size=6) for first in (0, 10)]
    encoded = 0
    for loader in (*loaders, *loaders):
        prepared = made.setup_dataloader(loader)
        encoded += made.cached.reports["thing"].n_encoded
        features, _ = next(iter(prepared))
        expected = ThingEncoder()(texts_of(items(loader.dataset)))
        torch.testing.assert_close(made.cached.model.encoders["thing"](features["thing"]), expected)
        assert made.setup_dataloader(prepared) is prepared
    assert encoded == 12


def test_a_data_set_that_has_grown_is_counted_anew() -> None:
    # A pair's document has a number that depends on how many pairs there are.
    made, data = model(CacheConfig("cpu"), "pairs"), Things("pairs", 5)
    for size in (5, 8):
        data.n = size
        loader = PairsSimilarityDataLoader(data, batch_size=size)
        features, _ = next(iter(made.setup_dataloader(loader)))
        expected = ThingEncoder()(texts_of(items(data)))
        torch.testing.assert_close(made.cached.model.encoders["thing"](features["thing"]), expected)


def test_what_has_content_is_still_known_by_it() -> None:
    class Mixed(ThingEncoder):
        def get_collate_fn(self) -> Any:
            return lambda things: texts_of([one if isinstance(one, Thing) else Thing(one) for one in things])

    made = model(CacheConfig("cpu"), "groups", thing=Mixed())
    objects = ["red", Thing("blue"), "red", Thing("blue")]
    samples = [SimilarityGroupSample(item, number % 2) for number, item in enumerate(objects)]
    made.setup_dataloader(GroupSimilarityDataLoader(samples, batch_size=4))
    assert made.cached.reports["thing"].n_encoded == 3


def test_views_of_things_are_drawn_by_number() -> None:
    def louder(item: Thing) -> Thing:
        return Thing(item._text + chr(97 + int(torch.randint(26, ()))))

    made = model(CacheConfig("cpu", views=2, augment=louder), "groups")
    prepared = made.setup_dataloader(GroupSimilarityDataLoader(Things("groups", 5), batch_size=5))
    features, _ = next(iter(prepared))
    assert made.cached.reports["thing"].n_encoded == 15
    assert features["thing"].shape == (5, 4)
    drawn = made.cached.drawn(features, training=True, epoch=0)
    assert made.cached.model.encoders["thing"](drawn["thing"]).shape == (5, 8)


def test_a_persistent_cache_refuses_them(tmp_path: Any) -> None:
    made = model(CacheConfig("disk", save_dir=tmp_path), "groups")
    with pytest.raises(CacheError, match=r"type Thing cannot be identified by its content; set CacheConfig\(key_extr"):
        made.setup_dataloader(GroupSimilarityDataLoader(Things("groups", 4), batch_size=2))
    with pytest.raises(CacheError, match="type Thing cannot be identified"):
        made.cached.encode([Thing("a")])


def test_without_a_data_set_they_are_encoded_as_without_a_cache() -> None:
    made = model(CacheConfig("cpu"), "groups")
    things = [Thing("a"), Thing("b"), Thing("a")]
    np.testing.assert_allclose(made.cached.encode(things), made.model.encode(things), atol=1e-6)
    with pytest.raises(CacheError, match="cannot be identified"):
        made.train_step([SimilarityGroupSample(one, 0) for one in things])


def test_a_key_extractor_goes_before_the_number() -> None:
    made = model(CacheConfig("cpu", key_extractors=lambda item: item._text), "groups")
    samples = [SimilarityGroupSample(Thing(word), number) for number, word in enumerate("abab")]
    made.setup_dataloader(GroupSimilarityDataLoader(samples, batch_size=4))
    assert made.cached.reports["thing"].n_encoded == 2


def test_tokens_are_shared_by_copies_of_a_model() -> None:
    sources, data = DataSources(), ["a"]
    twin = copy.deepcopy(sources)
    assert twin.token(data) == sources.token(data) != twin.token(["a"])
