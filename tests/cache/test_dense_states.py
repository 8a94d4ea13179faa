"""Boundaries of networks: what their frozen modules give is cached, and training is the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from simtrain import Runner, SimilarityModel, TrainableModel
from simtrain.cache import BoundaryEncoder, CacheConfig, CachedModel, boundary_fingerprint
from simtrain.cache.dense_states import DenseStateCache
from simtrain.data import GroupSimilarityDataLoader, SimilarityGroupSample
from simtrain.encoders import ModuleEncoder, VisionEncoder
from simtrain.errors import ConfigError, DataError
from simtrain.heads import EmptyHead, SkipConnectionHead
from simtrain.losses import TripletLoss
from tests.encoders.test_module_split import Stages

N = 12


def rows(n: int = N) -> list[torch.Tensor]:
    return list(torch.randn(n, 4, generator=torch.Generator().manual_seed(3)))


def images(n: int = N) -> list[np.ndarray]:
    return list(np.random.default_rng(3).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8))


ITEMS = {"module": rows, "vision": images}


def encoder(kind: str, trained: int = 1) -> ModuleEncoder | VisionEncoder:
    torch.manual_seed(0)
    if kind == "vision":
        return VisionEncoder(Stages(), trainable=f"last:{trained}", image_size=8, transform={"crop": 1.0})
    net = nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 6), nn.Dropout(0.3), nn.Linear(6, 3)
    )
    return ModuleEncoder(net, 3, trainable=f"from:{5 - 2 * trained + 2}", input_shape=[4])


def trained(kind: str, cache: CacheConfig | None, workers: int = 0, epochs: int = 2) -> dict[str, torch.Tensor]:
    model = TrainableModel(
        encoders=encoder(kind),
        head=SkipConnectionHead,
        loss=TripletLoss(margin=0.5, mining="all"),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        cache=cache,
    )
    samples = [SimilarityGroupSample(item, number % 3) for number, item in enumerate(ITEMS[kind]())]
    torch.manual_seed(1)
    loader = GroupSimilarityDataLoader(samples, batch_size=4, num_workers=workers)
    cfg = {"training": {"device": "cpu", "progress_bar": False}}
    Runner(model, epochs, loader, cfg=cfg).fit()
    return {name: weight.detach() for name, weight in model.state_dict().items()}


@pytest.mark.parametrize(("place", "workers"), [("cpu", 0), ("disk", 2)])
@pytest.mark.parametrize("kind", ["module", "vision"])
def test_training_is_bit_equal_to_training_without_a_cache(tmp_path: Any, kind: str, place: str, workers: int) -> None:
    # Filled in the batches that are trained on, so that all products have the same shapes.
    save_dir = tmp_path if place == "disk" else None
    cache = CacheConfig(place, boundary=True, dtype="float32", batch_size=4, save_dir=save_dir)
    cached, plain = trained(kind, cache, workers), trained(kind, None)
    assert cached.keys() == plain.keys()
    start = encoder(kind).state_dict()
    for name, weight in plain.items():
        assert torch.equal(cached[name], weight), name
    changed = [
        name for name, weight in start.items() if not torch.equal(weight, plain[f"_model.encoders.default.{name}"])
    ]
    assert changed
    assert not any(".stem" in name or name.startswith("module.0.") for name in changed)


@pytest.mark.parametrize("kind", ["module", "vision"])
def test_frozen_modules_run_once_and_a_second_run_finds_the_states(tmp_path: Any, kind: str) -> None:
    config = CacheConfig("disk", boundary=True, save_dir=tmp_path)
    for expected in (N, 0):
        cached = CachedModel(SimilarityModel(encoder(kind), EmptyHead(encoder(kind).embedding_size)), config)
        cached.encode(ITEMS[kind]())
        assert cached.reports["default"].n_encoded == expected
        assert isinstance(cached._caches["default"], DenseStateCache)
        assert isinstance(cached.model.encoders["default"], BoundaryEncoder)
        assert cached._caches["default"].store.dtype == "float16"


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 1e-2), ("bfloat16", 5e-2)])
@pytest.mark.parametrize("kind", ["module", "vision"])
def test_embeddings_equal_the_models_own(kind: str, dtype: str, tolerance: float) -> None:
    model = SimilarityModel(encoder(kind), EmptyHead(encoder(kind).embedding_size))
    cached = CachedModel(model, CacheConfig(boundary=True, dtype=dtype))
    np.testing.assert_allclose(
        cached.encode(ITEMS[kind]()), model.encode(ITEMS[kind]()), atol=tolerance, rtol=tolerance
    )


@pytest.mark.parametrize("kind", ["module", "vision"])
def test_the_identity_is_that_of_the_frozen_part(kind: str) -> None:
    one = encoder(kind)
    before = boundary_fingerprint(one)
    with torch.no_grad():
        one._trained[-1].weight += 1
    assert boundary_fingerprint(one) == before == boundary_fingerprint(encoder(kind))
    assert boundary_fingerprint(encoder(kind, trained=2)) != before
    with torch.no_grad():
        next(one.parameters()).add_(1)
    assert boundary_fingerprint(one) != before
    if kind == "vision":
        other = encoder(kind)
        other._mean = (0.0, 0.0, 0.0)
        assert boundary_fingerprint(other) != before


def test_an_encoder_that_cannot_be_cut_is_refused_at_once() -> None:
    frozen = ModuleEncoder(nn.Linear(4, 3), 3)
    with pytest.raises(ConfigError, match="encoder 'default': a boundary needs an encoder with trainable='from:NAME'"):
        CachedModel(SimilarityModel(frozen, EmptyHead(3)), CacheConfig(boundary="default"))


def test_items_of_another_shape_are_refused() -> None:
    net = nn.Sequential(nn.Conv1d(1, 2, 1), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(2, 3))
    made = ModuleEncoder(net, 3, trainable="from:1", input_shape=[1, 5])
    cached = CachedModel(SimilarityModel(made, EmptyHead(3)), CacheConfig(boundary=True))
    with pytest.raises(DataError, match=r"give shape \(2, 7\) for item 0 and \(2, 5\) for an example"):
        cached.encode([torch.zeros(1, 7)])
