import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simtrain.data import BalancedSampler
from simtrain.errors import DataError
from tests.data.samplers.processes import flat


@given(
    counts=st.lists(st.integers(1, 20), min_size=1, max_size=8),
    n_samples=st.none() | st.integers(1, 100),
    seed=st.integers(0, 1000),
)
def test_classes_and_their_samples_are_taken_evenly(counts, n_samples, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    order = list(BalancedSampler(labels, n_samples, seed))
    assert len(order) == (n_samples or len(labels))
    of_class = np.bincount(labels[order], minlength=len(counts))
    assert of_class.max() - of_class.min() <= 1
    taken = np.bincount(order, minlength=len(labels))
    for group in range(len(counts)):
        times = taken[labels == group]
        assert times.max() - times.min() <= 1


def test_classes_and_samples_are_equally_likely_over_epochs():
    labels = [0] * 7 + [1] * 2 + [2]
    sampler = BalancedSampler(labels, n_samples=4, seed=0)
    taken = np.bincount(flat(sampler for _ in range(1500)), minlength=10) / 1500
    np.testing.assert_allclose(taken[:7], 4 / 3 / 7, atol=0.05)
    np.testing.assert_allclose(taken[7:9], 4 / 3 / 2, atol=0.05)
    np.testing.assert_allclose(taken[9], 4 / 3, atol=0.05)


def test_the_order_does_not_follow_the_classes():
    labels = np.repeat([0, 1], 100)
    drawn = labels[list(BalancedSampler(labels, seed=0))]
    assert 70 < (drawn[1:] != drawn[:-1]).sum() < 130


def test_no_label_is_refused():
    with pytest.raises(DataError, match="at least one label is needed"):
        BalancedSampler([])
    assert list(BalancedSampler(["one"])) == [0]
