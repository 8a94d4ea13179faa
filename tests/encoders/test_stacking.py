from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from simtrain.encoders import ItemError
from simtrain.encoders.stacking import StackVectors, TransformAndStack, stack_items


@given(st.integers(1, 5), array_shapes(min_dims=0, max_dims=3, max_side=3), st.data())
def test_stack_items_equals_numpy_stack(count: int, shape: tuple[int, ...], data: st.DataObject) -> None:
    items = [data.draw(arrays(np.float32, shape, elements=st.floats(-5, 5, width=32))) for _ in range(count)]
    np.testing.assert_array_equal(stack_items(items).numpy(), np.stack(items))
    np.testing.assert_array_equal(stack_items([torch.tensor(item) for item in items]).numpy(), np.stack(items))


def test_stack_items_takes_read_only_and_reversed_arrays() -> None:
    fixed = np.arange(3.0)
    fixed.flags.writeable = False
    assert stack_items([fixed, np.arange(3.0)[::-1]]).tolist() == [[0, 1, 2], [2, 1, 0]]


def test_stack_items_takes_numbers_and_dicts() -> None:
    assert stack_items([1, 2]).tolist() == [1, 2]
    assert stack_items([{"a": 1.0}, {"a": 2.0}])["a"].tolist() == [1, 2]


def test_stack_items_names_the_item_of_another_shape() -> None:
    with pytest.raises(ItemError, match=r"^item 1 has shape \(3,\), but item 0 has \(2,\); give items of one shape"):
        stack_items([torch.zeros(2), torch.zeros(3)])


def test_transform_and_stack_can_be_pickled() -> None:
    collate = pickle.loads(pickle.dumps(TransformAndStack(np.negative)))
    assert collate([np.ones(2), np.zeros(2)]).tolist() == [[-1, -1], [0, 0]]


@pytest.mark.parametrize(
    "item", [[1, 2], (1.0, 2.0), np.array([1, 2], np.int64), torch.tensor([1, 2]), np.array([1, 2], np.float16)]
)
def test_stack_vectors_takes_all_kinds_of_vectors(item: Any) -> None:
    stacked = StackVectors(2)([item, [3, 4]])
    assert stacked.dtype is torch.float32
    assert stacked.tolist() == [[1, 2], [3, 4]]


def test_stack_vectors_of_nothing() -> None:
    assert StackVectors(3)([]).shape == (0, 3)


@pytest.mark.parametrize(
    ("item", "got"),
    [
        ([1.0], r"got shape \(1,\)"),
        ([[1.0, 2.0]], r"got shape \(1, 2\)"),
        (3.0, r"got shape \(\)"),
        ("text", "got 'text'"),
        (None, "got"),
        ([1, [2]], "got"),
    ],
)
def test_stack_vectors_names_the_wrong_item(item: Any, got: str) -> None:
    with pytest.raises(ItemError, match=f"^item 1 must be a vector of 2 numbers, {got}"):
        StackVectors(2)([[1, 2], item])
