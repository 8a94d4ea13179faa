from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simtrain.errors import ConfigError, DataError
from simtrain.evaluation.significance import PairedTest, bootstrap_interval, paired_test


def test_interval_agrees_with_scipy():
    values = np.random.default_rng(0).beta(2, 5, size=300)
    ours = bootstrap_interval(values, confidence=0.9)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, confidence_level=0.9, n_resamples=10_000, method="percentile", rng=1
    ).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=1.5e-3)


def test_interval_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(300):
        low, high = bootstrap_interval(rng.random(60), confidence=0.8, n_resamples=400)
        inside += low <= 0.5 <= high
    assert 0.72 < inside / 300 < 0.87


def test_same_seed_same_interval_whatever_the_input_kind():
    values = torch.rand(50)
    first = bootstrap_interval(values, seed=3)
    assert first == bootstrap_interval(values.numpy(), seed=3) == bootstrap_interval(values.tolist(), seed=3)
    assert first != bootstrap_interval(values, seed=4)


def test_clusters_widen_the_interval_of_repeated_queries():
    values = np.random.default_rng(1).random(40)
    repeated, clusters = np.repeat(values, 25), np.repeat(np.arange(40), 25)
    once = bootstrap_interval(values)
    assert bootstrap_interval(repeated, clusters=clusters) == pytest.approx(once)
    low, high = bootstrap_interval(repeated)
    assert high - low < 0.3 * (once[1] - once[0])


@pytest.mark.parametrize("values", [[0.3], [0.1] * 7, [0.1] * 30_000])
def test_equal_values_have_an_interval_of_no_width(values):
    assert bootstrap_interval(values, n_resamples=50) == (values[0], values[0])


def test_more_values_than_a_block_of_draws():
    values = np.random.default_rng(0).random(30_000)
    low, high = bootstrap_interval(values, n_resamples=150)
    assert low < values.mean() < high
    assert high - low < 0.01


@settings(max_examples=30, deadline=None)
@given(differences=st.lists(st.sampled_from([-1.0, -0.1, 0.0, 0.1, 0.2, 0.7]), min_size=1, max_size=9))
def test_few_queries_get_the_exact_p_value(differences):
    observed = abs(sum(differences))
    flips = list(itertools.product([-1, 1], repeat=len(differences)))
    totals = [abs(sum(s * d for s, d in zip(flip, differences, strict=True))) for flip in flips]
    expected = sum(total >= observed - 1e-9 for total in totals) / len(flips)
    result = paired_test(differences, [0.0] * len(differences))
    assert result.p_value == pytest.approx(expected)
    assert result.low <= result.difference + 1e-12
    assert result.difference <= result.high + 1e-12


def test_p_value_agrees_with_scipy():
    rng = np.random.default_rng(2)
    a, b = rng.random(80) + 0.04, rng.random(80)
    theirs = scipy.stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=10_000, rng=0
    )
    result = paired_test(a, b)
    assert result.p_value == pytest.approx(theirs.pvalue, abs=0.02)
    assert result.difference == pytest.approx(a.mean() - b.mean())
    assert (result.low, result.high) == pytest.approx(bootstrap_interval(a - b))


def test_sides_swap_and_clear_differences_show():
    rng = np.random.default_rng(3)
    b = rng.random(200)
    a = b + 0.1 + 0.01 * rng.random(200)
    forth, back = paired_test(a, b), paired_test(b, a)
    assert forth.p_value == back.p_value == pytest.approx(1 / 10_001)
    assert forth.difference == pytest.approx(-back.difference)
    assert forth.low > 0 > back.high


def test_p_values_are_even_when_there_is_no_difference():
    rng = np.random.default_rng(4)
    p_values = [paired_test(rng.random(30), rng.random(30), n_resamples=200).p_value for _ in range(200)]
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 0.01


def test_equal_models_and_one_query():
    same = [0.1, 0.7, 0.3] * 20
    assert paired_test(same, same) == PairedTest(0.0, 0.0, 0.0, 1.0)
    assert paired_test([0.75], [0.5]) == PairedTest(0.25, 0.25, 0.25, 1.0)


def test_clusters_are_flipped_together():
    a, b = [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]
    assert paired_test(a, b).p_value == 2 / 16
    assert paired_test(a, b, clusters=["x", "x", "y", "y"]).p_value == 2 / 4


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: bootstrap_interval([]),
            DataError,
            r"values must be one score a query, at least one, got shape \(0,\)",
        ),
        (lambda: bootstrap_interval(np.zeros((2, 2))), DataError, r"got shape \(2, 2\)"),
        (lambda: bootstrap_interval([0.0, float("nan")]), DataError, r"values\[1\] is NaN or infinite"),
        (lambda: bootstrap_interval([1.0], confidence=95.0), ConfigError, "confidence lies between 0 and 1, got 95.0"),
        (lambda: bootstrap_interval([1.0], n_resamples=0), ConfigError, "n_resamples is a positive integer, got 0"),
        (lambda: bootstrap_interval([1.0], clusters=[1, 2]), DataError, "got 2 clusters for 1 values"),
        (lambda: paired_test([1.0, 2.0], [1.0]), DataError, "a has 2 values, b has 1"),
        (lambda: paired_test([1.0], [float("inf")]), DataError, r"b\[0\] is NaN or infinite"),
    ],
)
def test_messages(call, error, message):
    with pytest.raises(error, match=message):
        call()
