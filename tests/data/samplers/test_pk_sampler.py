import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Subset

from simtrain.data import PKSampler, SimilarityGroupDataset
from simtrain.errors import ConfigError, DataError
from tests.data.samplers.processes import batches_of, flat, process


def check_batches(order, labels, batch_size, per_group):
    assert len(order) % batch_size == 0
    for batch in batches_of(order, batch_size):
        groups = np.asarray(labels)[batch].reshape(-1, per_group)
        assert (groups == groups[:, :1]).all()
        assert len(set(groups[:, 0])) == batch_size // per_group


@given(
    counts=st.lists(st.integers(1, 30), min_size=2, max_size=12),
    groups_per_batch=st.integers(1, 4),
    per_group=st.integers(1, 5),
    small_groups=st.sampled_from(["replace", "skip"]),
    seed=st.integers(0, 1000),
)
def test_every_batch_has_p_groups_with_k_items(counts, groups_per_batch, per_group, small_groups, seed):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)) * 3
    usable = len(counts) if small_groups == "replace" else sum(count >= per_group for count in counts)
    words = {"batch_size": groups_per_batch * per_group, "per_group": per_group, "small_groups": small_groups}
    if max(counts) == 1 < per_group or usable < groups_per_batch:
        with pytest.raises(DataError):
            PKSampler(labels, seed=seed, **words)
        return
    sampler = PKSampler(labels, seed=seed, **words)
    orders = [list(sampler) for _ in range(3)]
    assert {len(order) for order in orders} == {len(sampler)}
    for order in orders:
        check_batches(order, labels, words["batch_size"], per_group)
        taken = np.bincount(order, minlength=len(labels))
        for group, count in enumerate(counts):
            times = taken[labels == group * 3]
            if count >= per_group:
                assert times.max() <= 1
            elif small_groups == "skip":
                assert times.max() == 0
            elif times.max():
                assert times.sum() == per_group
                assert times.max() - times.min() <= 1
        n_portions = [count // per_group or int(small_groups == "replace") for count in counts]
        n_batches = len(order) // words["batch_size"]
        # There is no room for one batch more, and of the portions that fit almost none is left out.
        assert np.minimum(n_portions, n_batches + 1).sum() < groups_per_batch * (n_batches + 1)


def test_an_epoch_of_even_groups_is_the_data_set():
    labels = np.repeat(np.arange(20), 12)
    order = list(PKSampler(labels, batch_size=16, per_group=4, seed=0))
    assert sorted(order) == list(range(240))


def test_what_is_left_out_is_another_in_each_epoch():
    labels = np.repeat(np.arange(8), 5)
    sampler = PKSampler(labels, batch_size=8, per_group=2, seed=0)
    taken = np.bincount(flat(sampler for _ in range(40)), minlength=40)
    assert taken.min() > 20
    assert taken.sum() == 40 * 32


def test_groups_meet_all_others():
    labels = np.repeat(np.arange(10), 40)
    sampler = PKSampler(labels, batch_size=4, per_group=2, seed=0)
    met = np.zeros((10, 10), dtype=int)
    for _ in range(20):
        for batch in batches_of(list(sampler), 4):
            first, second = sorted(set(labels[batch]))
            met[first, second] += 1
    pairs = met[np.triu_indices(10, 1)]
    # 2,000 batches over 45 pairs of groups.
    assert pairs.min() > 20
    assert pairs.max() < 80


def test_small_groups_are_counted():
    labels = [0] * 6 + [1] * 6 + [2] * 2 + [3]
    replaced = PKSampler(labels, batch_size=6, per_group=3, seed=0)
    assert (replaced.n_small_groups, replaced.n_skipped) == (2, 0)
    assert {labels[index] for index in replaced} == {0, 1, 2, 3}
    skipped = PKSampler(labels, batch_size=6, per_group=3, seed=0, small_groups="skip")
    assert (skipped.n_small_groups, skipped.n_skipped) == (2, 3)
    assert {labels[index] for index in skipped} == {0, 1}


@pytest.mark.parametrize(
    "labels",
    [
        ["a", "b", "a", "b"],
        np.array([4, 9, 4, 9]),
        torch.tensor([4, 9, 4, 9]),
        [torch.tensor(1), torch.tensor(0), torch.tensor(1), torch.tensor(0)],
        SimilarityGroupDataset([(0, "a"), (1, "b"), (2, "a"), (3, "b")]),
        Subset(SimilarityGroupDataset([(9, "c"), (0, "a"), (1, "b"), (2, "a"), (3, "b")]), [1, 2, 3, 4]),
    ],
)
def test_labels_come_in_many_forms(labels):
    order = list(PKSampler(labels, batch_size=4, per_group=2, seed=0))
    assert {frozenset(pair) for pair in batches_of(order, 2)} == {frozenset({0, 2}), frozenset({1, 3})}


def test_labels_that_teach_nothing_are_refused():
    with pytest.raises(DataError, match="at least one label is needed"):
        PKSampler([], batch_size=4, per_group=2)
    with pytest.raises(DataError, match="all 5 group labels are equal"):
        PKSampler([7] * 5, batch_size=4, per_group=2)
    with pytest.raises(DataError, match="all 5 group labels are different"):
        PKSampler(range(5), batch_size=4, per_group=2)
    with pytest.raises(DataError, match="all 1 group labels are"):
        PKSampler([3], batch_size=4, per_group=2)


def test_too_few_groups_for_a_batch_are_refused():
    labels = [0, 0, 1, 1, 2, 2, 3]
    with pytest.raises(DataError, match=r"batches of 10 with 2 items a group need 5 groups, but there are 4; make"):
        PKSampler(labels, batch_size=10, per_group=2)
    with pytest.raises(DataError, match=r"need 4 groups, but there are 3 of at least 2 items"):
        PKSampler(labels, batch_size=8, per_group=2, small_groups="skip")
    sampler = PKSampler(labels, batch_size=4, per_group=2)
    with process(0, 3), pytest.raises(DataError, match=r"batches of 4 on 3 processes .* need 6 groups"):
        list(sampler)


def test_wrong_arguments_are_refused(without_type_checks):
    with pytest.raises(ConfigError, match="batch_size should be a multiple of per_group, got 10 and 4"):
        PKSampler([0, 0, 1, 1], batch_size=10, per_group=4)
    with pytest.raises(ConfigError, match="got 8 and 0"):
        PKSampler([0, 0, 1, 1], batch_size=8, per_group=0)
    with pytest.raises(ConfigError, match="small_groups should be 'replace' or 'skip', got 'drop'"):
        PKSampler([0, 0, 1, 1], batch_size=4, per_group=2, small_groups="drop")


def test_a_million_items_are_ordered_in_seconds():
    labels = np.random.default_rng(0).integers(0, 10_000, 1_000_000)
    started = time.process_time()
    order = list(PKSampler(labels, batch_size=256, per_group=4, seed=0))
    assert time.process_time() - started < 10
    assert len(order) > 980_000
    check_batches(order[: 256 * 50], labels, 256, 4)
