"""A loader goes on where another one stopped."""

import io
import itertools

import pytest
import torch

from tests.data.loader_makers import (
    by_groups,
    dealt_by_torch,
    in_a_batch_sampler,
    in_order,
    items,
    one_at_a_time,
    shuffled,
    stream,
    whole_batches,
)

MAKERS = [shuffled, whole_batches, in_order, by_groups, in_a_batch_sampler, dealt_by_torch, stream]


def after_saving(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def check_every_place(make, **options):
    reading = make(**options)
    epochs = [[items(batch) for batch in reading] for _ in range(2)]
    for given in range(len(epochs[0]) + 1):
        running, resumed = make(**options), make(**options)
        torch.manual_seed(given)
        batches = iter(running)
        taken = [items(batch) for batch in itertools.islice(batches, given)]
        resumed.load_state_dict(after_saving(running.state_dict()))
        rest = [items(batch) for batch in resumed]
        assert taken == epochs[0][:given]
        # After the last batch comes the next epoch; of a stream, nobody knows which batch is the last.
        assert rest == (epochs[0][given:] or ([] if make is stream else epochs[1]))
        if given < len(epochs[0]) or make is stream:
            assert [items(batch) for batch in resumed] == epochs[1]


@pytest.mark.parametrize("make", MAKERS)
def test_it_goes_on_at_every_place(make):
    if make in (stream, dealt_by_torch):
        # Their epochs are alike: this one has no epoch, that one has it set.
        assert [items(batch) for batch in make()] == [items(batch) for batch in make()]
    check_every_place(make)


@pytest.mark.parametrize("make", [shuffled, in_order, by_groups])
@pytest.mark.parametrize("persistent", [False, True])
def test_batches_that_workers_have_fetched_do_not_count(make, persistent):
    options = {"num_workers": 2, "persistent_workers": persistent, "prefetch_factor": 2}
    plain, running, resumed = make(), make(**options), make(**options)
    epochs = [[items(batch) for batch in plain] for _ in range(2)]
    batches = iter(running)
    assert [items(next(batches)) for _ in range(3)] == epochs[0][:3]
    resumed.load_state_dict(running.state_dict())
    assert [items(batch) for batch in resumed] == epochs[0][3:]
    assert [items(batch) for batch in resumed] == epochs[1]
    # The first one is not disturbed by this.
    assert [items(batch) for batch in batches] == epochs[0][3:]
    assert [items(batch) for batch in running] == epochs[1]


def test_single_samples_without_batches():
    running, resumed = one_at_a_time(), one_at_a_time()
    order = [items(sample) for sample in one_at_a_time()]
    batches = iter(running)
    assert [items(next(batches)) for _ in range(7)] == order[:7]
    resumed.load_state_dict(running.state_dict())
    assert [items(sample) for sample in resumed] == order[7:]


def test_a_state_is_that_of_the_batch_handed_out_last():
    loader = shuffled()
    assert loader.state_dict()["sampler"]["position"] == 0
    for number, _ in enumerate(loader, 1):
        state = loader.state_dict()["sampler"]
        assert (state["epoch"], state["position"]) == ((0, 6 * number) if number < 7 else (1, 0))
    other = shuffled()
    for _ in zip(range(2), other, strict=False):
        pass
    assert other.state_dict()["sampler"]["position"] == 12
    assert next(iter(other)) is not None
    assert other.state_dict()["sampler"]["epoch"] == 1


def test_a_state_that_was_loaded_can_be_saved_at_once():
    for make in (shuffled, in_order):
        running, loaded = make(), make()
        next(iter(running))
        loaded.load_state_dict(running.state_dict())
        assert loaded.state_dict() == running.state_dict()


def test_validating_with_the_same_loader_in_the_middle_of_an_epoch():
    loader, plain = shuffled(), shuffled()
    expected = [items(batch) for batch in plain]
    training = iter(loader)
    next(training)
    for _ in loader:
        pass
    state = loader.state_dict()["sampler"]
    assert (state["epoch"], state["position"]) == (0, 6)
    resumed = shuffled()
    resumed.load_state_dict(loader.state_dict())
    assert [items(batch) for batch in resumed] == expected[1:]
    assert [items(batch) for batch in training] == expected[1:]


def test_an_epoch_that_is_set_after_iter_counts():
    loader, plain = shuffled(), shuffled()
    next(iter(plain))
    batches = iter(loader)
    loader.sampler.set_epoch(1)
    assert [items(batch) for batch in batches] == [items(batch) for batch in plain]


def test_a_place_in_an_epoch_that_was_cut_short_is_forgotten_with_the_next():
    cut, resumed, plain = shuffled(), shuffled(), shuffled()
    epochs = [[items(batch) for batch in plain] for _ in range(2)]
    batches = iter(cut)
    next(batches)
    resumed.load_state_dict(cut.state_dict())
    resumed.sampler.set_epoch(0)
    assert [items(batch) for batch in resumed] == epochs[0][1:]
    resumed.load_state_dict(cut.state_dict())
    resumed.sampler.set_epoch(1)
    assert [items(batch) for batch in resumed] == epochs[1]
