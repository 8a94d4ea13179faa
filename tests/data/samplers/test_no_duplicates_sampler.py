import time
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simtrain.data import (
    NoDuplicatesSampler,
    SimilarityGroupSample,
    SimilarityPairDataset,
    SimilarityPairSample,
    SimilarityTripletSample,
)
from simtrain.data.sample_keys import sample_keys
from simtrain.errors import ConfigError, DataError
from tests.data.samplers.processes import batches_of, flat, process


def random_pairs(n, n_queries, n_documents, n_subgroups=0, seed=0):
    random = np.random.default_rng(seed)
    subgroups = random.integers(0, n_subgroups, n) if n_subgroups else np.zeros(n, dtype=int)
    return [
        SimilarityPairSample(f"q{query}", f"d{document}", subgroup=int(subgroup))
        for query, document, subgroup in zip(
            random.integers(0, n_queries, n), random.integers(0, n_documents, n), subgroups, strict=True
        )
    ]


def n_conflicts(order, samples, batch_size):
    batches = batches_of(order, batch_size)
    return sum(
        count - 1
        for batch in batches
        for count in Counter(key for index in batch for key in sample_keys(samples[index])).values()
    )


@st.composite
def some_pairs(draw, most, n_texts):
    """Pairs of which texts and subgroups repeat, sometimes so much that they cannot be kept apart."""
    n, seed = draw(st.integers(1, most)), draw(st.integers(0, 10**6))
    return random_pairs(n, n_texts, n_texts, n_subgroups=n_texts, seed=seed)


@given(pairs=some_pairs(60, 30), batch_size=st.integers(1, 6), seed=st.integers(0, 100))
def test_every_pair_once_and_no_key_twice_in_a_batch(pairs, batch_size, seed):
    order = placed(pairs, batch_size, seed)
    if order is None:
        # Among sixty texts, only a key in nearly every batch, or a few pairs in all, can be in the way.
        counts = Counter(key for pair in pairs for key in sample_keys(pair))
        assert max(counts.values()) > len(pairs) / batch_size or len(pairs) < 4 * batch_size
        return
    assert sorted(order) == list(range(len(pairs)))
    assert n_conflicts(order, pairs, batch_size) == 0


@given(pairs=some_pairs(7, 4), batch_size=st.integers(1, 4), seed=st.integers(0, 100))
def test_few_pairs_are_placed_whenever_it_is_possible(pairs, batch_size, seed):
    order = placed(pairs, batch_size, seed)
    room = [batch_size] * (len(pairs) // batch_size) + [len(pairs) % batch_size]
    assert (order is not None) == can_be_placed([sample_keys(pair) for pair in pairs], room, [set() for _ in room])


def placed(pairs, batch_size, seed):
    try:
        return list(NoDuplicatesSampler(pairs, batch_size=batch_size, seed=seed))
    except DataError:
        return None


def can_be_placed(keys, room, taken):
    """Brute force: every batch for every sample."""
    if not keys:
        return True
    for batch in range(len(room)):
        if room[batch] and not taken[batch] & keys[0]:
            room[batch] -= 1
            taken[batch] |= keys[0]
            found = can_be_placed(keys[1:], room, taken)
            room[batch] += 1
            taken[batch] -= keys[0]
            if found:
                return True
    return False


def test_tight_data_is_placed():
    # Each query is in as many pairs as there are batches, and so is each document: a Latin square.
    pairs = [SimilarityPairSample(f"q{a}", f"d{b}") for a in range(6) for b in range(6)]
    sampler = NoDuplicatesSampler(pairs, batch_size=4, seed=0)
    for _ in range(10):
        order = list(sampler)
        assert sorted(order) == list(range(36))
        assert n_conflicts(order, pairs, 4) == 0


def test_a_text_counts_on_either_side_and_with_itself():
    pairs = [SimilarityPairSample("a", "b"), SimilarityPairSample("b", "c"), SimilarityPairSample("d", "d")]
    pairs += [SimilarityPairSample("e", "f", subgroup=9), SimilarityPairSample("g", "h", subgroup=9)]
    pairs += [SimilarityPairSample("i", "j"), SimilarityPairSample("k", "l")]
    sampler = NoDuplicatesSampler(SimilarityPairDataset(pairs), batch_size=4, seed=0)
    for _ in range(20):
        first, second = batches_of(list(sampler), 4)
        assert len({0, 1} & set(first)) == len({3, 4} & set(first)) == 1
        assert len(second) == 3


def test_triplets_and_keys_of_ones_own():
    triplets = [SimilarityTripletSample("a", "b", ["c"]), SimilarityTripletSample("d", "e", ["a"])]
    assert len(list(NoDuplicatesSampler(triplets, batch_size=1, seed=0))) == 2
    with pytest.raises(DataError, match="'a' is in 2 samples, but there are only 1 batches of 2"):
        NoDuplicatesSampler(triplets, batch_size=2)
    items = [SimilarityGroupSample(number, number % 4) for number in range(12)]
    sampler = NoDuplicatesSampler(items, batch_size=4, seed=0, keys=lambda sample: [sample.group])
    assert all(sorted(index % 4 for index in batch) == [0, 1, 2, 3] for batch in batches_of(list(sampler), 4))


def test_a_key_in_more_samples_than_batches_is_reported_at_once():
    pairs = [SimilarityPairSample("same", f"d{i}") for i in range(5)] + random_pairs(11, 10**6, 10**6)
    with pytest.raises(DataError, match=r"'same' is in 5 samples, but there are only 4 batches of 4; make batch_size"):
        NoDuplicatesSampler(pairs, batch_size=4)
    assert len(list(NoDuplicatesSampler(pairs, batch_size=3))) == 16
    with process(0, 2), pytest.raises(DataError, match="only 3 batches of 6"):
        list(NoDuplicatesSampler(pairs, batch_size=3))


def test_conflicts_are_kept_if_asked_and_counted():
    pairs = [SimilarityPairSample("same", f"d{i}") for i in range(7)] + random_pairs(9, 10**6, 10**6)
    sampler = NoDuplicatesSampler(pairs, batch_size=4, seed=0, conflicts="keep")
    order = list(sampler)
    assert sorted(order) == list(range(16))
    assert sampler.n_conflicts == n_conflicts(order, pairs, 4) == 3


@given(n_queries=st.integers(2, 40), batch_size=st.integers(2, 6), seed=st.integers(0, 50))
def test_samples_are_dropped_if_asked(n_queries, batch_size, seed):
    pairs = random_pairs(50, n_queries, 60, seed=seed)
    try:
        sampler = NoDuplicatesSampler(pairs, batch_size=batch_size, seed=seed, conflicts="drop")
        orders = [list(sampler) for _ in range(2)]
    except DataError:
        assert n_queries < 3 * batch_size
        return
    for order in orders:
        assert len(order) == len(sampler)
        assert len(order) % batch_size == 0
        assert len(set(order)) == len(order)
        assert n_conflicts(order, pairs, batch_size) == 0


def test_what_is_dropped_is_another_in_each_epoch():
    pairs = [SimilarityPairSample("same", f"d{i}") for i in range(10)] + random_pairs(14, 10**6, 10**6)
    sampler = NoDuplicatesSampler(pairs, batch_size=4, seed=0, conflicts="drop")
    taken = np.bincount(flat(sampler for _ in range(60)), minlength=24)
    assert len(sampler) == 16
    assert taken.min() > 10


def test_objects_without_a_hash_are_refused():
    for item, kind in ((torch.ones(2), "Tensor"), ([1, 2], "list")):
        with pytest.raises(DataError, match=f"a {kind} cannot be compared by its hash; pass keys="):
            NoDuplicatesSampler([SimilarityPairSample(item, item)], batch_size=1)
    with pytest.raises(DataError, match="pairs or triplets are needed, got a SimilarityGroupSample"):
        NoDuplicatesSampler([SimilarityGroupSample("a", 1)], batch_size=1)
    with pytest.raises(DataError, match="at least one sample, got none"):
        NoDuplicatesSampler([], batch_size=1)


def test_wrong_arguments_are_refused(without_type_checks):
    with pytest.raises(ConfigError, match="conflicts should be 'error', 'keep' or 'drop', got 'ignore'"):
        NoDuplicatesSampler(random_pairs(3, 9, 9), batch_size=1, conflicts="ignore")
    with pytest.raises(ConfigError, match="remainder should be 'share' or 'drop' where nothing may be repeated"):
        NoDuplicatesSampler(random_pairs(3, 9, 9), batch_size=1, remainder="repeat")


@pytest.mark.slow
def test_100_000_pairs_are_ordered_in_seconds():
    keys = np.random.default_rng(0).integers(0, [50_000, 50_000, 5_000], (100_000, 3)) * 3 + np.arange(3)
    sampler = NoDuplicatesSampler(keys, batch_size=100, seed=0, keys=lambda row: row.tolist())
    started = time.process_time()
    order = list(sampler)
    # About a second, without the type checks of the test run.
    assert time.process_time() - started < 15
    assert len(set(order)) == 100_000
    batches = np.sort(keys[order].reshape(-1, 100 * 3), axis=1)
    assert (np.diff(batches, axis=1) > 0).all()
