import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simtrain.data.samplers.dealing import World, current_world, deal, share_length
from simtrain.errors import DataError
from tests.data.samplers.processes import flat, process

SIZES = {"n": st.integers(0, 60), "size": st.integers(1, 5), "batch_size": st.integers(1, 8)}


def shares_of(n, size, batch_size, remainder):
    shares = [deal(np.arange(n), World(rank, size), batch_size, remainder).tolist() for rank in range(size)]
    assert [len(share) for share in shares] == [
        share_length(n, World(rank, size), batch_size, remainder) for rank in range(size)
    ]
    return shares


def n_batches(share, batch_size):
    return -(-len(share) // batch_size)


@given(**SIZES)
def test_sharing_loses_and_repeats_nothing_or_refuses(n, size, batch_size):
    rest = n % (size * batch_size)
    if 0 < rest < size:
        with pytest.raises(DataError, match=f"leave {rest} for {size} processes"):
            shares_of(n, size, batch_size, "share")
        return
    shares = shares_of(n, size, batch_size, "share")
    assert sorted(flat(shares)) == list(range(n))
    assert len({n_batches(share, batch_size) for share in shares}) == 1


@given(**SIZES)
def test_repeating_evens_out_with_fewer_samples_than_processes(n, size, batch_size):
    shares = shares_of(n, size, batch_size, "repeat")
    assert len({len(share) for share in shares}) == 1
    assert set(flat(shares)) == set(range(n))
    assert 0 <= len(flat(shares)) - n < size


@given(**SIZES)
def test_dropping_evens_out_with_fewer_samples_than_processes(n, size, batch_size):
    shares = shares_of(n, size, batch_size, "drop")
    assert len({len(share) for share in shares}) == 1
    assert len(set(flat(shares))) == len(flat(shares))
    assert 0 <= n - len(flat(shares)) < size


def test_the_present_process_is_asked_for_now():
    assert current_world() == World(0, 1)
    with process(2, 4):
        assert current_world() == World(2, 4)
