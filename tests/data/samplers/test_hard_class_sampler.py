import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simtrain.data import HardClassSampler, PKSampler
from simtrain.data.samplers.hard_class_sampler import near_groups
from simtrain.errors import CheckpointError, DataError
from tests.data.samplers.processes import batches_of, process
from tests.data.samplers.test_pk_sampler import check_batches

LABELS = np.repeat(np.arange(24), 10)
# Groups 0-3, 4-7, ... look in one direction each.
POINTS = torch.nn.functional.one_hot(torch.from_numpy(LABELS) // 4).float() + 0.01 * torch.rand(240, 6)


def make(**words):
    return HardClassSampler(LABELS, **{"batch_size": 8, "per_group": 2, "seed": 0, **words})


def nearness(order):
    """Mean number of neighbouring directions in a batch: 1 where all groups of it look the same way."""
    return np.mean([len(set(LABELS[batch] // 4)) for batch in batches_of(order, 8)])


def test_batches_hold_neighbours():
    sampler = make()
    sampler.update(POINTS)
    order = list(sampler)
    check_batches(order, LABELS, 8, 2)
    assert sorted(order) == list(range(240))
    assert nearness(list(make())) > 2.5
    assert nearness(order) < 1.4


def test_without_embeddings_it_is_a_pk_sampler():
    sampler, plain = make(), PKSampler(LABELS, batch_size=8, per_group=2, seed=0)
    assert list(sampler) == list(plain)
    sampler.update(POINTS)
    assert list(sampler) != list(plain)


@given(
    counts=st.lists(st.integers(2, 16), min_size=3, max_size=15),
    groups_per_batch=st.integers(1, 3),
    seed=st.integers(0, 100),
)
def test_it_takes_what_a_pk_sampler_takes(counts, groups_per_batch, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    words = {"batch_size": 2 * groups_per_batch, "per_group": 2, "seed": seed}
    hard, plain = HardClassSampler(labels, **words), PKSampler(labels, **words)
    hard.update(torch.randn(len(labels), 4))
    for _ in range(2):
        order, expected = list(hard), list(plain)
        check_batches(order, labels, words["batch_size"], 2)
        assert np.bincount(labels[order]).tolist() == np.bincount(labels[expected]).tolist()
        assert np.bincount(order).max() == 1


def test_a_batch_is_the_anchor_and_its_nearest_by_brute_force():
    random = np.random.default_rng(0)
    means = random.normal(size=(30, 5)).astype(np.float32)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    first = next(near_groups(np.full(30, 4), 30, means, random))
    near = [set(np.argsort(-(means[anchor] @ means.T))[:4]) for anchor in range(30)]
    assert set(first) in near


def test_embeddings_of_some_items_with_their_labels():
    sampler, whole = make(), make()
    whole.update(POINTS)
    some = torch.arange(0, 240, 2)
    sampler.update(POINTS[some].double(), torch.from_numpy(LABELS)[some])
    assert nearness(list(sampler)) < 1.4
    with pytest.raises(DataError, match="there is no group with the label 24"):
        sampler.update(POINTS[:2], [0, 24])


def test_groups_without_embeddings_are_still_taken():
    sampler = make()
    known = LABELS < 8
    sampler.update(POINTS[known], LABELS[known])
    assert sorted(sampler) == list(range(240))


def test_a_collapsed_model_does_no_harm():
    for points in (torch.zeros(240, 3), torch.ones(240, 3)):
        sampler = make()
        sampler.update(points)
        check_batches(list(sampler), LABELS, 8, 2)


def test_embeddings_that_do_not_fit_are_refused(without_type_checks):
    with pytest.raises(DataError, match=r"240 labels need as many embeddings, got shape \(3, 6\)"):
        make().update(POINTS[:3])
    with pytest.raises(DataError, match=r"got shape \(240,\)"):
        make().update(POINTS[:, 0])
    with pytest.raises(DataError, match="not finite"):
        make().update(POINTS * torch.inf)


def test_new_embeddings_in_the_middle_of_an_epoch_wait_for_the_next():
    other = torch.roll(POINTS, 35, 0)
    running = make()
    running.update(POINTS)
    iterator = iter(running)
    for _ in range(16):
        next(iterator)
    running.update(other)
    state = running.state_dict()
    rest, following = list(iterator), list(running)
    resumed = make(seed=7)
    resumed.load_state_dict(state)
    assert list(resumed) == rest
    assert list(resumed) == following
    plain = make()
    plain.update(POINTS)
    assert list(plain)[16:] == rest


def test_a_state_of_other_groups_is_refused():
    sampler = make()
    sampler.update(POINTS)
    state = sampler.state_dict()
    with pytest.raises(CheckpointError, match="lacks means of 24 groups"):
        make().load_state_dict({**state, "means": state["means"][:5]})
    with pytest.raises(CheckpointError, match="lacks means_in_use of 24 groups"):
        make().load_state_dict({name: value for name, value in state.items() if name != "means_in_use"})


def test_processes_share_the_neighbours():
    joined = []
    for rank in range(2):
        with process(rank, 2):
            sampler = make(batch_size=4)
            sampler.load_state_dict(with_means())
            joined.append(batches_of(list(sampler), 4))
    one = make()
    one.load_state_dict(with_means())
    assert [left + right for left, right in zip(*joined, strict=True)] == batches_of(list(one), 8)


def with_means():
    sampler = make()
    sampler.update(POINTS)
    return sampler.state_dict()
