import copy

import pytest
import torch
from torch.utils.data import DataLoader

from simtrain.cache import CacheConfig, CachedEncoder, open_cache
from simtrain.encoders import Encoder, ModuleEncoder
from simtrain.errors import CacheError

TEXTS = ["a", "bb", "ccc", "dddd", "a"]


@pytest.fixture(params=["cpu", "disk"])
def cached(request, make_encoder, tmp_path):
    cache = open_cache("text", make_encoder(), CacheConfig(save_dir=tmp_path), request.param)
    cache.fill(TEXTS)
    cache.encoder.batches.clear()
    return CachedEncoder(cache)


def test_it_gives_what_the_encoder_gives(cached, make_encoder):
    encoder = make_encoder().eval()
    got = cached(cached.get_collate_fn()(TEXTS))
    assert torch.allclose(got, encoder(encoder.get_collate_fn()(TEXTS)), atol=1e-5)
    assert not got.requires_grad
    assert cached.encoder.batches == []


def test_it_looks_like_a_frozen_encoder(cached):
    assert isinstance(cached, Encoder)
    assert not cached.trainable
    assert cached.embedding_size == 4
    assert cached.get_config_dict() == {"size": 4, "scale": 1.0}


def test_it_has_no_weights_of_its_own(cached):
    assert list(cached.parameters()) == []
    assert cached.state_dict() == {}
    assert [type(module) for module in cached.modules()] == [CachedEncoder]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loaders_give_rows_from_any_number_of_workers(cached, num_workers):
    loader = DataLoader(TEXTS, batch_size=2, collate_fn=cached.get_collate_fn(), num_workers=num_workers)
    assert torch.cat(list(loader)).tolist() == cached.cache.rows(TEXTS).tolist()


def test_the_collate_function_knows_rows_that_came_later(cached):
    collate = cached.get_collate_fn()
    cached.cache.fill(["later"])
    assert collate(["later"]).tolist() == [4]


def test_objects_that_are_not_there_are_named(cached):
    with pytest.raises(CacheError, match="has no embedding of 'new'"):
        cached.get_collate_fn()(["a", "new"])


def test_it_saves_the_real_encoder(tmp_path):
    encoder = ModuleEncoder(torch.nn.Linear(2, 2), 2)
    cached = CachedEncoder(open_cache("text", encoder, CacheConfig(), "cpu"))
    (tmp_path / "cached").mkdir()
    (tmp_path / "real").mkdir()
    cached.save(tmp_path / "cached")
    encoder.save(tmp_path / "real")
    names = sorted(path.name for path in (tmp_path / "real").iterdir())
    assert sorted(path.name for path in (tmp_path / "cached").iterdir()) == names
    with pytest.raises(CacheError, match="a CachedEncoder is never saved; load"):
        CachedEncoder.load(tmp_path)


def test_copies_share_the_cache(cached):
    rows = cached.get_collate_fn()(TEXTS)
    copied = copy.deepcopy(cached)
    assert torch.equal(copied(rows), cached(rows))
    assert copied.cache is cached.cache
