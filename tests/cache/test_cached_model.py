import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset

from simtrain.cache import CacheConfig, CachedModel, CacheType
from simtrain.data import GroupSimilarityDataLoader, PairsSimilarityDataLoader, SimilarityPairSample
from simtrain.data.loaders import with_collate
from simtrain.errors import CacheError, ConfigError
from simtrain.heads import SkipConnectionHead, StackedProjectionHead
from simtrain.models import SimilarityModel
from tests.training.models import ENCODED, BagEncoder, group_model, group_samples, pair_samples, words


def make(**encoders):
    encoders = encoders or {"bag": BagEncoder()}
    size = sum(encoder.embedding_size for encoder in encoders.values())
    return SimilarityModel(encoders, SkipConnectionHead(size)).eval()


@pytest.mark.parametrize("kind", ["cpu", "disk"])
def test_cached_embeddings_equal_the_models_own(tmp_path, kind):
    model, items = make(), words(40) * 2
    config = CacheConfig(kind, save_dir=tmp_path if kind == "disk" else None)
    cached = CachedModel(model, config)
    np.testing.assert_allclose(cached.encode(items), model.encode(items), atol=1e-6)
    assert cached.reports["bag"].n_encoded == 40


def test_another_head_reads_the_same_cache():
    model, items = make(), words(10)
    cached = CachedModel(model, CacheConfig(CacheType.CPU))
    cached.encode(items)
    ENCODED.clear()
    assert cached.with_head(StackedProjectionHead(8, [3])).encode(items).shape == (10, 3)
    bare = cached.without_head().encode(items)
    assert not ENCODED
    encoder = model.encoders["bag"]
    np.testing.assert_allclose(bare, encoder(encoder.get_collate_fn()(items)).detach().numpy(), atol=1e-6)


def test_changed_weights_are_noticed():
    encoder, items = BagEncoder(), words(10)
    model = make(bag=encoder)
    cached = CachedModel(model, CacheConfig(CacheType.CPU))
    before = cached.encode(items)
    encoder.linear.weight.data *= 2
    after = cached.encode(items)
    np.testing.assert_allclose(after, model.encode(items), atol=1e-6)
    assert not np.allclose(before, after)


@pytest.mark.parametrize(
    ("samples", "loader"), [(pair_samples, PairsSimilarityDataLoader), (group_samples, GroupSimilarityDataLoader)]
)
@pytest.mark.parametrize("workers", [0, 2])
def test_prepared_batches_hold_the_features_and_targets_of_the_loader(samples, loader, workers):
    model = make()
    cached = CachedModel(model, CacheConfig(CacheType.CPU))
    cached.open()
    given = loader(samples(), batch_size=7, shuffle=True, num_workers=workers)
    expected = [(model(features), targets) for features, targets in with_collate(given, cached_collate(model))]
    # Copies of a loader share its sampler: without this, the next epoch would follow.
    given.sampler.set_epoch(0)
    got = [(cached.model(features), targets) for features, targets in cached.prepare(given)]
    assert len(got) == len(expected) == 4
    for (embeddings, targets), (wanted, wanted_targets) in zip(got, expected, strict=True):
        torch.testing.assert_close(embeddings, wanted)
        for name, value in wanted_targets.items():
            assert torch.equal(targets[name], value), name
        assert len(targets["items"]) == len(embeddings)


def cached_collate(model):
    return CachedModel(model, None).collate


def test_what_is_filled_after_new_weights_never_goes_into_the_cache_of_the_old_ones(tmp_path):
    config = CacheConfig("disk", save_dir=tmp_path)
    encoder, items = BagEncoder(), words(10)
    old = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    cached = CachedModel(make(bag=encoder), config)
    cached.open()
    cached.fill(items[:5])
    encoder.load_state_dict({name: 2 * weight for name, weight in old.items()})
    cached.fill(items[5:])
    encoder.load_state_dict(old)
    again = CachedModel(make(bag=encoder), config).without_head().encode(items)
    np.testing.assert_allclose(again, encoder(encoder.get_collate_fn()(items)).detach().numpy(), atol=1e-6)


def test_a_step_alone_after_new_weights_is_of_the_new_ones():
    encoder = BagEncoder()
    model = group_model(encoders=encoder, cache=CacheConfig("cpu")).eval()
    model.train_step(group_samples(8))
    encoder.load_state_dict({name: 2 * weight for name, weight in encoder.state_dict().items()})
    uncached = group_model(encoders=encoder).eval()
    uncached.load_state_dict(model.state_dict(), strict=False)
    torch.testing.assert_close(
        model.train_step(group_samples(8))["loss"], uncached.train_step(group_samples(8))["loss"]
    )


@pytest.mark.parametrize("kind", ["cpu", "disk"])
def test_a_loader_of_rows_is_of_the_model_that_prepared_it(tmp_path, kind):
    config = CacheConfig(kind, save_dir=tmp_path if kind == "disk" else None)
    one, other = (group_model(cache=config) for _ in range(2))
    other.setup_dataloader(GroupSimilarityDataLoader(group_samples()[::-1], batch_size=8))  # rows in another order
    prepared = one.setup_dataloader(GroupSimilarityDataLoader(group_samples(), batch_size=8))
    one.setup_dataloader(prepared)
    with pytest.raises(CacheError, match="an encoder has changed since, or it is another model's"):
        other.setup_dataloader(prepared)


def test_a_loader_beside_a_trained_encoder_is_of_the_weights_that_it_was_prepared_for():
    encoder = BagEncoder()
    model = group_model(encoders={"a": encoder, "b": BagEncoder(trainable=True)}, cache=CacheConfig("cpu"))
    prepared = model.setup_dataloader(GroupSimilarityDataLoader(group_samples(), batch_size=8))
    model.cached.open_for(prepared)
    encoder.load_state_dict({name: 2 * weight for name, weight in encoder.state_dict().items()})
    with pytest.raises(CacheError, match="an encoder has changed since, or it is another model's"):
        model.cached.open_for(prepared)
    model.cached.open_for(model.setup_dataloader(prepared))


def test_a_trainable_encoder_beside_a_cached_one_goes_on_collating():
    model = make(fixed=BagEncoder(), moving=BagEncoder(size=4, trainable=True))
    cached = CachedModel(model, CacheConfig(CacheType.CPU))
    cached.open()
    features, _ = next(iter(cached.prepare(PairsSimilarityDataLoader(pair_samples(), batch_size=6))))
    assert features["fixed"].dtype == torch.long
    assert features["moving"].shape == (12, 26)
    assert cached.model(features).shape == (12, 12)


class Augmented(Dataset):
    def __init__(self):
        self.reads = 0

    def __len__(self):
        return 4

    def __getitem__(self, index):
        self.reads += 1
        return SimilarityPairSample(f"query {index} {self.reads}", f"document {index}")


class Stream(IterableDataset):
    def __iter__(self):
        return iter(pair_samples(10))


def test_a_random_transform_is_found_and_not_frozen():
    cached = CachedModel(make(), CacheConfig(CacheType.CPU))
    cached.open()
    with pytest.raises(CacheError, match="random augmentation"):
        cached.prepare(PairsSimilarityDataLoader(Augmented(), batch_size=2))


def test_a_stream_is_cached_too():
    cached = CachedModel(make(), CacheConfig(CacheType.CPU))
    cached.open()
    batches = list(cached.prepare(PairsSimilarityDataLoader(Stream(), batch_size=4)))
    assert [len(features["bag"]) for features, _ in batches] == [8, 8, 4]


def test_no_cache_leaves_the_model_as_it_is():
    model = make()
    cached = CachedModel(model, None)
    cached.open()
    assert cached.model is model


def test_a_wrong_name_is_refused_at_once():
    with pytest.raises(ConfigError, match="image"):
        CachedModel(make(), CacheConfig(mapping={"image": CacheType.CPU}))
    CachedModel(make(), CacheConfig(CacheType.GPU))  # whether there is a GPU shows when training starts


@pytest.mark.parametrize("kind", ["auto", "gpu"])
def test_what_was_cached_on_an_accelerator_stays_when_the_trainer_takes_the_model_back(kind):
    # The device "meta" stands for an accelerator here: it is another one than the CPU, and every machine has it.
    cached = CachedModel(make(), CacheConfig(kind))
    cached.open("meta")
    cache = cached._caches["bag"]
    assert cache.device.type == "meta"
    cached.open("cpu")
    assert cached._caches["bag"] is cache
    assert cache.device.type == "cpu"
    other = CachedModel(make(), CacheConfig("gpu"))
    with pytest.raises(ConfigError, match="training runs on the CPU"):
        other.open("cpu")
