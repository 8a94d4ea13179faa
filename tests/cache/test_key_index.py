import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simtrain.cache.key_index import KeyIndex, first_positions

# Few values for either half: runs of equal first halves with different second halves are frequent.
KEYS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=40)


def as_keys(pairs: list[tuple[int, int]]) -> np.ndarray:
    return np.array(pairs, dtype=np.uint64).reshape(-1, 2).view(np.uint8).reshape(-1, 16)


@given(st.lists(KEYS, max_size=4), KEYS)
def test_lookup_equals_a_dictionary(parts, asked):
    index = KeyIndex()
    for part in parts:
        index.extend(as_keys(part))
    flat = [pair for part in parts for pair in part]
    expected = [flat.index(pair) if pair in flat else -1 for pair in asked]
    assert index.lookup(as_keys(asked)).tolist() == expected
    assert len(index) == len(flat)


@given(KEYS, KEYS)
def test_rows_stay_as_the_index_grows(first, second):
    index = KeyIndex()
    index.extend(as_keys(first))
    before = index.lookup(as_keys(first))
    index.extend(as_keys(second))
    assert np.array_equal(index.lookup(as_keys(first)), before)


@given(KEYS)
def test_first_positions_equal_a_loop(pairs):
    expected = [position for position, pair in enumerate(pairs) if pair not in pairs[:position]]
    assert first_positions(as_keys(pairs)).tolist() == expected


def test_extreme_keys_are_found():
    keys = np.stack([np.zeros(16, np.uint8), np.full(16, 255, np.uint8)])
    index = KeyIndex()
    index.extend(keys)
    assert index.lookup(keys).tolist() == [0, 1]


@given(KEYS, KEYS, st.integers(0, 40), st.integers(0, 40))
def test_forgotten_rows_are_missing_and_the_others_keep_their_numbers(first, second, start, length):
    index = KeyIndex()
    index.extend(as_keys(first))
    index.forget(start, start + length)
    index.extend(as_keys(second))
    rows = [
        (row, pair) for row, pair in enumerate([*first, *second]) if not start <= row < min(start + length, len(first))
    ]
    expected = [next((row for row, other in rows if other == pair), -1) for pair in first]
    assert index.lookup(as_keys(first)).tolist() == expected
    assert len(index) == len(rows)
