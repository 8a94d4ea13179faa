"""The order in which loaders read: seeds, processes, samplers, cache rows."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

from simtrain.cache.indexed_loader import RowsCollate, indexed_loader
from simtrain.data import (
    GroupSimilarityDataLoader,
    PairsSimilarityDataLoader,
    PKSampler,
    ResumableDataLoader,
    ShuffleSampler,
    SimilarityPairSample,
)
from simtrain.data.batches import GROUPS
from simtrain.data.loaders import with_collate
from simtrain.errors import CheckpointError, DataError
from tests.data.loader_makers import LABELS, SAMPLES, by_groups, in_a_batch_sampler, in_order, items, shuffled
from tests.data.samplers.processes import flat, process


def test_the_same_torch_seed_gives_the_same_order_when_the_loader_is_made():
    one, two = shuffled(), shuffled()
    assert [items(batch) for batch in one] == [items(batch) for batch in two]
    other = GroupSimilarityDataLoader(SAMPLES, batch_size=6, shuffle=True)
    assert [items(batch) for batch in one] != [items(batch) for batch in other]
    generators = [torch.Generator().manual_seed(8) for _ in range(2)]
    loaders = [GroupSimilarityDataLoader(SAMPLES, shuffle=True, generator=generator) for generator in generators]
    assert [items(batch) for batch in loaders[0]] == [items(batch) for batch in loaders[1]]


@pytest.mark.parametrize("workers", [0, 2])
def test_reading_leaves_torchs_generator_alone_and_seeds_workers_alike(workers):
    before = [list(RandomWord(shuffled(num_workers=workers))) for _ in range(2)]
    state = torch.get_rng_state()
    loader = shuffled(num_workers=workers)
    torch.set_rng_state(state)
    list(loader)
    assert torch.equal(torch.get_rng_state(), state)
    assert before[0] == before[1]


class RandomWord:
    """Draws of torch's generator in the process that collates."""

    def __init__(self, loader):
        self.loader = with_collate(loader, draw)

    def __iter__(self):
        torch.manual_seed(11)
        return iter(self.loader)


def draw(samples):
    return torch.rand(()).item()


def test_workers_draw_other_numbers_in_each_epoch_and_process():
    loader = with_collate(shuffled(num_workers=1), draw)
    drawn = [list(loader), list(loader)]
    with process(1, 2):
        drawn.append(list(with_collate(shuffled(num_workers=1), draw)))
    assert len({one[0] for one in drawn}) == 3


def test_a_copy_has_a_place_of_its_own():
    loader = shuffled()
    batches = iter(loader)
    next(batches)
    twin = with_collate(loader, loader.collate_fn)
    next(iter(twin))
    assert twin.state_dict()["sampler"]["epoch"] == 1
    assert loader.state_dict()["sampler"]["epoch"] == 0
    next(batches)
    assert loader.state_dict()["sampler"]["position"] == 12


def test_processes_share_a_shuffle():
    seen = []
    for rank in range(3):
        with process(rank, 3):
            loader = shuffled()
            batches = [items(batch) for batch in loader]
            assert len(batches) == len(loader) == 3
            seen += flat(batches)
    assert sorted(seen) == list(range(40))
    with process(0, 3):
        loader = GroupSimilarityDataLoader(SAMPLES[:37], batch_size=6, shuffle=True)
        with pytest.raises(DataError, match="37 samples in batches of 6 leave 1 for 3 processes"):
            list(loader)
        loader = GroupSimilarityDataLoader(SAMPLES[:37], batch_size=6, shuffle=True, drop_last=True)
        assert len(list(loader)) == len(loader) == 2


def test_the_number_of_processes_may_change_between_saving_and_loading():
    plain = [items(batch) for batch in shuffled()]
    with process(1, 2):
        running = shuffled()
        next(iter(running))
        state = running.state_dict()
    resumed = shuffled()
    resumed.load_state_dict(state)
    assert flat(items(batch) for batch in resumed) == flat(plain[2:])


def test_an_order_that_cannot_be_had_again_is_reported():
    loader = GroupSimilarityDataLoader(SAMPLES, batch_size=6, sampler=RandomSampler(SAMPLES))
    next(iter(loader))
    with pytest.warns(UserWarning, match="the order of a RandomSampler cannot be restored: .* use shuffle=True"):
        loader.load_state_dict(loader.state_dict())
    assert len(list(loader)) == 6
    loader.load_state_dict({"batches": 0, "sampler": None})


def test_a_state_of_another_kind_of_loader_is_refused():
    with pytest.raises(CheckpointError, match="not saved by one with a sampler like SequentialSampler"):
        in_order().load_state_dict(shuffled().state_dict())
    with pytest.raises(CheckpointError, match="like ShuffleSampler; make the loader as it was made then"):
        shuffled().load_state_dict(in_order().state_dict())
    with pytest.raises(CheckpointError, match="like ShuffleSampler"):
        shuffled().load_state_dict({})


def test_a_sampler_for_other_batches_or_data_is_refused():
    sampler = PKSampler(LABELS, batch_size=6, per_group=2)
    with pytest.raises(DataError, match="the sampler makes batches of 6, but the loader's batch_size is 8"):
        GroupSimilarityDataLoader(SAMPLES, batch_size=8, sampler=sampler)
    with pytest.raises(DataError, match="batches of 6, but the loader's batch_size is 4"):
        GroupSimilarityDataLoader(SAMPLES, batch_sampler=BatchSampler(sampler, 4, False))
    with pytest.raises(DataError, match="the sampler is for 40 samples, but the data set has 39"):
        GroupSimilarityDataLoader(SAMPLES[1:], batch_size=6, sampler=sampler)
    with pytest.raises(DataError, match="shuffle=True and a sampler exclude each other"):
        GroupSimilarityDataLoader(SAMPLES, batch_size=6, sampler=sampler, shuffle=True)


def rows_of(loader):
    rows = RowsCollate({"enc": torch.arange(40)}, GROUPS.labels(SAMPLES), GROUPS, 40, {"enc": "id"})
    return indexed_loader(loader, rows)


@pytest.mark.parametrize("make", [shuffled, in_order, by_groups, in_a_batch_sampler])
def test_a_loader_over_cache_rows_goes_on_too(make):
    epochs = [[items(batch) for batch in loader] for loader in [make()] for _ in range(2)]
    running, resumed = rows_of(make()), rows_of(make())
    assert isinstance(running, ResumableDataLoader)
    batches = iter(running)
    assert [next(batches)[0]["enc"].tolist() for _ in range(3)] == epochs[0][:3]
    resumed.load_state_dict(running.state_dict())
    assert [features["enc"].tolist() for features, _ in resumed] == epochs[0][3:]
    assert [features["enc"].tolist() for features, _ in resumed] == epochs[1]


def test_a_loader_over_cache_rows_shows_its_sampler_and_takes_any_batch_sampler():
    given = by_groups()
    assert rows_of(given).sampler is given.sampler
    assert isinstance(rows_of(in_order()).sampler, SequentialSampler)
    odd = GroupSimilarityDataLoader(SAMPLES, batch_sampler=[[3, 1], [2], [0, 9, 4]])
    assert [features["enc"].tolist() for features, _ in rows_of(odd)] == [[3, 1], [2], [0, 9, 4]]
    resumed = rows_of(odd)
    resumed.load_state_dict({"batches": 2, "sampler": None})
    assert [features["enc"].tolist() for features, _ in resumed] == [[0, 9, 4]]


def test_every_sample_comes_once_an_epoch_over_a_run_with_stops():
    pairs = [SimilarityPairSample(f"q{i}", f"d{i}") for i in range(25)]
    torch.manual_seed(0)
    loader, random = PairsSimilarityDataLoader(pairs, batch_size=4, shuffle=True), np.random.default_rng(0)
    seen = Counter()
    for _ in range(12):
        for batch in itertools.islice(iter(loader), int(random.integers(1, 9))):
            seen.update(batch.objects[: len(batch.objects) // 2])
        fresh = PairsSimilarityDataLoader(pairs, batch_size=4, shuffle=True)
        fresh.load_state_dict(loader.state_dict())
        loader = fresh
    assert max(seen.values()) - min(seen[pair.obj_a] for pair in pairs) <= 1


def test_shuffling_by_another_sampler_of_the_same_length():
    sampler = ShuffleSampler(SAMPLES, seed=1)
    loader = GroupSimilarityDataLoader(SAMPLES, batch_size=9, sampler=sampler)
    assert sorted(flat(items(batch) for batch in loader)) == list(range(40))
