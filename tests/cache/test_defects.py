"""What caches of another project did wrong, one test a defect, by the numbers of the project's list of such defects."""

import json
import pickletools
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, IterableDataset, RandomSampler

from simtrain import CacheConfig, CacheType, Runner
from simtrain.cache import CachedModel
from simtrain.data import GroupSimilarityDataLoader
from simtrain.heads import SkipConnectionHead
from simtrain.models import SimilarityModel
from tests.training.models import ENCODED, group_model, group_samples, words
from tests.training.models import BagEncoder as UnseededBag

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}

QUIET_WARNINGS = "ignore:.*(workers|_dataloader|overridden|LeafSpec|eval mode at the start|logging interval).*"


def BagEncoder() -> UnseededBag:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return UnseededBag()


def cached_model(config: CacheConfig, encoder: UnseededBag | None = None) -> CachedModel:
    cached = CachedModel(SimilarityModel({"bag": encoder or BagEncoder()}, SkipConnectionHead(8)).eval(), config)
    cached.open()
    return cached


def embedded(encoder: UnseededBag, items: list[str]) -> torch.Tensor:
    with torch.no_grad():
        return encoder.eval()(encoder.get_collate_fn()(items))


def test_defect_01_a_persisted_cache_never_gives_old_embeddings(tmp_path: Path) -> None:
    config, items = CacheConfig("disk", save_dir=tmp_path), words(20)
    cached_model(config).encode(items)
    changed = ["changed", *items[1:], "new"]  # with the numbers of the old ones, and one more
    for texts, n_encoded in ((changed, 2), (items[::-1], 0)):
        ENCODED.clear()
        vectors = cached_model(config).without_head().encode(texts)
        assert sum(ENCODED) == n_encoded
        np.testing.assert_allclose(vectors, embedded(BagEncoder(), texts).numpy(), rtol=1e-5, atol=1e-5)
    other = BagEncoder()
    other.linear.weight.data += 1
    cached = cached_model(config, other)
    assert cached.fill(items)["bag"].n_encoded == 20
    np.testing.assert_allclose(
        cached.without_head().encode(items), embedded(other, items).numpy(), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("extractor", [None, str.upper])
def test_defect_02_workers_pair_keys_with_their_embeddings(extractor: Any) -> None:
    cached = cached_model(CacheConfig("cpu", num_workers=2, batch_size=3, key_extractors=extractor))
    loader = GroupSimilarityDataLoader(group_samples(40), batch_size=6, shuffle=True, num_workers=2)
    rows, groups = [], []
    for features, targets in cached.prepare(loader):
        rows.append(features["bag"])
        groups.append(targets["groups"])
    store = cached._caches["bag"].store
    found = {
        (int(group), *vector.tolist())
        for vector, group in zip(store.gather(torch.cat(rows)), torch.cat(groups), strict=True)
    }
    samples = group_samples(40)
    for sample in samples:
        vector = embedded(BagEncoder(), [sample.obj])[0]
        near = [key for key in found if torch.allclose(torch.tensor(key[1:]), vector, atol=1e-5)]
        assert [int(key[0]) for key in near] == [sample.group]


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        worker = torch.utils.data.get_worker_info()
        return iter(group_samples(12)[(worker.id if worker else 0) :: (worker.num_workers if worker else 1)])


def test_defect_03_a_mapping_to_none_batch_samplers_and_streams_with_workers() -> None:
    model = group_model(encoders={"one": BagEncoder(), "two": BagEncoder()}, cache=CacheConfig(mapping={"one": "none"}))
    model.setup_dataloader(GroupSimilarityDataLoader(group_samples(12), batch_size=4))
    assert not model.cached.reports
    model = group_model(cache=CacheConfig("cpu", mapping={"default": CacheType.NONE}))
    model.setup_dataloader(GroupSimilarityDataLoader(group_samples(12), batch_size=4))
    assert not model.cached.reports
    sampler = BatchSampler(RandomSampler(range(12)), 5, drop_last=False)
    for loader in (
        GroupSimilarityDataLoader(group_samples(12), batch_sampler=sampler),
        GroupSimilarityDataLoader(Stream(), batch_size=5, num_workers=2),
    ):
        cached = cached_model(CacheConfig("cpu"))
        rows = torch.cat([features["bag"] for features, _ in cached.prepare(loader)])
        assert sorted(rows.tolist()) == list(range(12))


@pytest.mark.filterwarnings(QUIET_WARNINGS)
@pytest.mark.parametrize("cache", [None, CacheConfig("cpu")])
def test_defect_04_one_loader_serves_two_trainings(cache: CacheConfig | None) -> None:
    loader = GroupSimilarityDataLoader(group_samples(12), batch_size=4)
    collate = loader.collate_fn
    model = group_model(cache=cache)
    cfg = {"training": {"device": "cpu", "progress_bar": False}}
    for _ in range(2):
        Runner(model, 1, loader, cfg=cfg).fit()
        lightning.Trainer(max_epochs=1, accelerator="cpu", **QUIET).fit(model, loader)
    assert loader.collate_fn is collate
    assert [len(batch.objects) for batch in loader] == [4, 4, 4]


def test_defect_05_no_file_of_a_cache_is_a_pickle(tmp_path: Path) -> None:
    cached_model(CacheConfig("disk", save_dir=tmp_path)).encode(words(20))
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]
    assert {path.suffix for path in files} == {".npy", ".json"}
    for path in files:
        if path.suffix == ".json":
            json.loads(path.read_text())
        else:
            np.load(path, allow_pickle=False)
        with pytest.raises(ValueError, match=r"opcode|pickle"):
            list(pickletools.genops(path.read_bytes()))


@pytest.mark.filterwarnings(QUIET_WARNINGS)
def test_defect_06_a_trainer_may_make_the_loader_anew() -> None:
    class Reloading(lightning.LightningDataModule):
        n_made = 0

        def train_dataloader(self) -> Any:
            self.n_made += 1
            return GroupSimilarityDataLoader(group_samples(8 + 4 * self.n_made), batch_size=4)

    data, model = Reloading(), group_model(cache=CacheConfig("cpu"))
    ENCODED.clear()
    options = {"max_epochs": 3, "reload_dataloaders_every_n_epochs": 1, "accelerator": "cpu"}
    lightning.Trainer(**options, **QUIET).fit(model, datamodule=data)
    assert data.n_made == 3
    assert sum(ENCODED) == 20
