"""What holds for every sampler."""

import io
import itertools

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler

from simtrain import registry
from simtrain.data import (
    BalancedSampler,
    HardClassSampler,
    NoDuplicatesSampler,
    PKSampler,
    ShuffleSampler,
    SimilarityPairSample,
    SimilaritySampler,
)
from simtrain.errors import CheckpointError, ConfigError, DataError
from tests.data.samplers.processes import joined_batches, process

LABELS = np.random.default_rng(0).integers(0, 12, 90)
PAIRS = [SimilarityPairSample(f"q{i % 50}", f"d{i % 37}", subgroup=i % 5 * (i % 40 == 0)) for i in range(90)]


def hard(batch_size, seed):
    sampler = HardClassSampler(LABELS, batch_size=batch_size, per_group=2, seed=seed)
    sampler.update(torch.randn(len(LABELS), 3, generator=torch.Generator().manual_seed(0)))
    return sampler


MAKERS = {
    "shuffle": lambda batch_size=6, seed=5: ShuffleSampler(LABELS, seed, batch_size=batch_size),
    "balanced": lambda batch_size=6, seed=5: BalancedSampler(LABELS, seed=seed, batch_size=batch_size),
    "pk": lambda batch_size=6, seed=5: PKSampler(LABELS, batch_size=batch_size, per_group=2, seed=seed),
    "hard": lambda batch_size=6, seed=5: hard(batch_size, seed),
    "no_duplicates": lambda batch_size=6, seed=5: NoDuplicatesSampler(PAIRS, batch_size=batch_size, seed=seed),
}


@pytest.fixture(params=MAKERS)
def make(request):
    return MAKERS[request.param]


def test_the_same_seed_gives_the_same_order_and_epochs_differ(make):
    first, again, other = make(), make(), make(seed=6)
    epochs = [list(first) for _ in range(3)]
    assert epochs == [list(again) for _ in range(3)]
    assert len({tuple(epoch) for epoch in [*epochs, list(other)]}) == 4
    assert {len(epoch) for epoch in epochs} == {len(first)}
    again.set_epoch(1)
    assert list(again) == epochs[1]


def test_torchs_seed_reproduces_a_sampler_without_one(make):
    torch.manual_seed(3)
    orders = [list(make(seed=None)), list(make(seed=None))]
    torch.manual_seed(3)
    assert orders == [list(make(seed=None)), list(make(seed=None))]
    assert orders[0] != orders[1]


def test_torchs_generator_is_left_alone_by_iterating(make):
    sampler, before = make(), torch.get_rng_state()
    list(sampler)
    assert torch.equal(torch.get_rng_state(), before)


def test_it_can_be_resumed_at_every_place(make):
    whole = make()
    stream = [index for _ in range(2) for index in whole]
    for given in range(len(make()) + 4):
        running = make()
        taken = []
        while len(taken) < given:
            taken += list(itertools.islice(running, given - len(taken)))
        resumed = make(seed=99)
        resumed.load_state_dict(saved_and_loaded(running.state_dict()))
        assert taken == stream[:given]
        assert [index for _ in range(2) for index in resumed][: len(stream) - given] == stream[given:]


def saved_and_loaded(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_a_state_is_taken_without_an_iteration(make):
    untouched, done = make(), make()
    assert untouched.state_dict()["epoch"] == untouched.state_dict()["position"] == 0
    list(done)
    state = done.state_dict()
    assert (state["epoch"], state["position"], state["offset"]) == (1, 0, 0)
    twin = make(seed=1)
    twin.load_state_dict(state)
    assert twin.state_dict()["epoch"] == 1
    assert list(twin) == list(done)


def test_an_iteration_that_was_broken_off_counts_as_an_epoch(make):
    sampler, whole = make(), make()
    next(iter(sampler))
    list(whole)
    assert list(sampler) == list(whole)


def test_two_iterations_at_once_do_not_disturb_each_other(make):
    sampler, whole = make(), make()
    first, second = list(whole), list(whole)
    one, two = iter(sampler), iter(sampler)
    woven = [(next(one), next(two)) for _ in range(len(first))]
    assert [list(order) for order in zip(*woven, strict=True)] == [first, second]


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [2, 4])
def test_the_batches_of_all_processes_are_those_of_one(make, size, batch_size):
    assert joined_batches(make, size, batch_size) == joined_batches(make, 1, size * batch_size)


@pytest.mark.parametrize("name", ["shuffle", "balanced"])
@pytest.mark.parametrize("size", [1, 3])
def test_a_shuffle_goes_on_with_another_number_of_processes(name, size):
    make = MAKERS[name]
    whole = list(make())
    with process(1, 2):
        sampler = make(3)
        iterator = iter(sampler)
        for _ in range(4 * 3):
            next(iterator)
        state = sampler.state_dict()
    rest = []
    for rank in range(size):
        with process(rank, size):
            resumed = make(2)
            resumed.load_state_dict(state)
            rest += list(resumed)
    assert sorted(rest) == sorted(whole[4 * 6 :])


@pytest.mark.parametrize("name", ["pk", "hard", "no_duplicates"])
def test_shaped_batches_go_on_with_the_same_samples_in_a_batch_of_all(name):
    make = MAKERS[name]
    running, whole = make(8), list(make(8))
    iterator = iter(running)
    for _ in range(16):
        next(iterator)
    state = running.state_dict()
    rest = {}
    for rank in range(2):
        with process(rank, 2):
            resumed = make(4)
            resumed.load_state_dict(state)
            rest[rank] = list(resumed)
    assert rest[0][:4] + rest[1][:4] == whole[16:24]
    assert sorted(rest[0] + rest[1]) == sorted(whole[16:])
    resumed = make(4)
    resumed.load_state_dict(state)
    with pytest.raises(CheckpointError, match="began with 1 processes x batch size 8 cannot be continued with 1 x 4"):
        list(resumed)
    resumed.set_epoch(3)
    assert len(list(resumed)) == len(resumed)


def test_the_middle_of_a_batch_needs_the_same_batches(make):
    running = make(6)
    iterator = iter(running)
    for _ in range(8):
        next(iterator)
    with process(0, 3):
        resumed = make(2)
        resumed.load_state_dict(running.state_dict())
        with pytest.raises(CheckpointError, match="in the middle of a batch of 6 on 1 processes"):
            list(resumed)


def test_a_state_that_does_not_fit_is_refused(make):
    sampler = make()
    next(iter(sampler))
    state = sampler.state_dict()
    with pytest.raises(CheckpointError, match="lacks seed, position"):
        sampler.load_state_dict({k: v for k, v in state.items() if k not in ("seed", "position")})
    with pytest.raises(CheckpointError, match="an epoch over 89 samples cannot be continued with 90"):
        sampler.load_state_dict({**state, "size": 89})
    sampler.load_state_dict({**state, "size": 89, "offset": 0})


def test_an_epoch_that_is_set_keeps_a_place_in_it_and_forgets_one_in_another(make):
    running = make()
    iterator = iter(running)
    first = [next(iterator) for _ in range(7)]
    state = running.state_dict()
    rest = list(iterator)
    resumed = make()
    resumed.load_state_dict(state)
    resumed.set_epoch(0)
    assert list(resumed) == rest
    resumed.load_state_dict(state)
    resumed.set_epoch(1)
    resumed.set_epoch(0)
    assert list(resumed) == first + rest


@pytest.mark.parametrize("workers", [0, 2])
def test_a_plain_loader_takes_it(make, workers):
    whole, sampler = make(), make()
    loader = DataLoader(range(90), batch_size=6, sampler=sampler, num_workers=workers)
    for _ in range(2):
        assert [int(index) for batch in loader for index in batch] == list(whole)
    assert sampler.epoch == 2


def test_trainers_take_it_for_their_own_kind(make):
    sampler = make()
    assert isinstance(sampler, DistributedSampler)
    with process(1, 3):
        assert (sampler.rank, sampler.num_replicas) == (1, 3)


def test_all_are_registered():
    classes = [ShuffleSampler, BalancedSampler, PKSampler, HardClassSampler, NoDuplicatesSampler]
    assert [registry.samplers.get(cls.__name__) for cls in classes] == classes
    assert len(MAKERS) == len(classes)
    built = registry.samplers.build({"type": "PKSampler", "per_group": 2}, LABELS, batch_size=4, seed=0)
    assert list(built) == list(PKSampler(LABELS, batch_size=4, per_group=2, seed=0))


def test_wrong_arguments_are_refused(without_type_checks):
    with pytest.raises(DataError, match="at least one sample, got none"):
        ShuffleSampler([])
    with pytest.raises(DataError, match="a stream cannot be shuffled by a sampler: generator has no length"):
        ShuffleSampler(iter_of())
    with pytest.raises(ConfigError, match="seed should be 0 or above, got -1"):
        ShuffleSampler([1], seed=-1)
    with pytest.raises(ConfigError, match="batch_size should be a positive integer, got 0"):
        ShuffleSampler([1], batch_size=0)
    with pytest.raises(ConfigError, match="remainder should be 'share', 'repeat' or 'drop', got 'lose'"):
        ShuffleSampler([1], remainder="lose")
    with pytest.raises(ConfigError, match="n_samples should be a positive integer, got 0"):
        BalancedSampler([1], n_samples=0)
    with pytest.raises(NotImplementedError):
        list(SimilaritySampler(3))


def iter_of():
    yield 1
