import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Subset

from simtrain.data import (
    GroupSimilarityDataLoader,
    PKSampler,
    SimilarityGroupDataset,
    SimilarityPairSample,
    split_groups,
    split_pairs,
)
from simtrain.data.sample_keys import sample_keys
from simtrain.errors import ConfigError, DataError
from tests.data.samplers.processes import flat

THREE = {"train": 0.7, "valid": 0.2, "test": 0.1}


@given(
    counts=st.lists(st.integers(1, 30), min_size=3, max_size=60),
    seed=st.integers(0, 100),
    stratify=st.booleans(),
)
def test_parts_are_disjoint_by_group_complete_and_of_the_asked_size(counts, seed, stratify):
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    parts = split_groups(labels, THREE, seed, stratify)
    assert list(parts) == list(THREE)
    assert sorted(flat(parts.values())) == list(range(len(labels)))
    groups = [set(labels[numbers]) for numbers in parts.values()]
    assert all(groups)
    assert sum(map(len, groups)) == len(set(labels))
    for name, numbers in parts.items():
        assert numbers == sorted(numbers)
        # Whole groups: off by two of the largest at most, beside the one group that every part gets.
        assert abs(len(numbers) - THREE[name] * len(labels)) <= 2 * max(counts)


def test_a_seed_reproduces_a_split_and_another_gives_another():
    labels = np.repeat(np.arange(50), 4)
    assert split_groups(labels, THREE, 3) == split_groups(torch.from_numpy(labels), THREE, 3)
    assert split_groups(labels, THREE, 3) != split_groups(labels, THREE, 4)
    by_default = split_groups(labels)
    assert {name: len(numbers) for name, numbers in by_default.items()} == {"train": 160, "valid": 20, "test": 20}


def test_stratified_parts_have_small_and_large_groups_alike():
    counts = np.repeat([1, 2, 10, 50], 100)
    labels = np.repeat(np.arange(400), counts)
    parts = split_groups(labels, THREE, seed=0)
    for name, numbers in parts.items():
        sizes = np.bincount(labels[numbers], minlength=400)
        for size in (1, 2, 10, 50):
            assert abs((sizes == size).sum() - 100 * THREE[name]) <= 2, (name, size)
    loose = split_groups(labels, THREE, seed=0, stratify=False)
    sizes = np.bincount(labels[loose["test"]], minlength=400)
    assert max(abs((sizes == size).sum() - 10) for size in (1, 2, 10, 50)) > 2


def test_pairs_that_share_a_text_stay_together():
    random = np.random.default_rng(0)
    pairs = [
        SimilarityPairSample(f"t{a}", f"t{b}", subgroup=int(g) if g < 40 else 0)
        for a, b, g in zip(*random.integers(0, 500, (3, 200)), strict=True)
    ]
    parts = split_pairs(pairs, {"train": 0.5, "test": 0.5}, seed=1)
    assert sorted(flat(parts.values())) == list(range(200))
    keys = [set().union(*(sample_keys(pairs[number]) for number in numbers)) for numbers in parts.values()]
    assert not keys[0] & keys[1]


def test_pairs_are_linked_through_others_sides_and_subgroups():
    pairs = [
        SimilarityPairSample("a", "b"),
        SimilarityPairSample("c", "a"),
        SimilarityPairSample("c", "d", subgroup=3),
        SimilarityPairSample("e", "f", subgroup=3),
        SimilarityPairSample("g", "h"),
    ]
    parts = split_pairs(pairs, {"train": 0.8, "test": 0.2})
    assert parts == {"train": [0, 1, 2, 3], "test": [4]}
    with pytest.raises(DataError, match="3 parts need at least 3 sets of linked samples, got 2"):
        split_pairs(pairs)


def test_parts_make_subsets_for_loaders_and_samplers():
    data = SimilarityGroupDataset([(f"x{i}", f"g{i % 20}") for i in range(100)])
    train = Subset(data, split_groups(data)["train"])
    sampler = PKSampler(train, batch_size=8, per_group=2, seed=0)
    loader = GroupSimilarityDataLoader(train, batch_size=8, sampler=sampler)
    for batch in loader:
        assert sorted(batch.targets["groups"].bincount()[batch.targets["groups"].unique()].tolist()) == [2] * 4


def test_a_giant_group_goes_to_one_part_and_none_is_empty():
    labels = [0] * 90 + [1, 2]
    parts = split_groups(labels, THREE)
    assert parts["train"] == list(range(90))
    assert sorted(map(len, parts.values())) == [1, 1, 90]


@pytest.mark.parametrize(
    "sizes", [{}, {"train": 0.9}, {"train": 1.2, "test": -0.2}, {"train": 0.8, "test": 0.1, "valid": float("nan")}]
)
def test_shares_that_make_no_sense_are_refused(sizes):
    with pytest.raises(ConfigError, match=r"sizes should be positive shares that add up to 1, got \{"):
        split_groups([0, 1, 2], sizes)


def test_too_few_groups_are_refused():
    with pytest.raises(DataError, match="3 parts need at least 3 groups, got 2"):
        split_groups([0, 0, 1])
    with pytest.raises(DataError, match="at least one label"):
        split_groups([])
    with pytest.raises(DataError, match="at least one sample"):
        split_pairs([])
    assert split_groups([5, 5], {"all": 1}) == {"all": [0, 1]}


@pytest.mark.slow
def test_200_000_items_are_split_in_seconds():
    started = time.process_time()
    split_groups(np.random.default_rng(0).integers(0, 50_000, 200_000))
    split_pairs([SimilarityPairSample(f"q{i}", f"d{i // 2}") for i in range(50_000)])
    assert time.process_time() - started < 10
