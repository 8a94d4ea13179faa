from __future__ import annotations

from collections import UserList, deque
from typing import Any

import numpy as np
import pytest
import torch

from simtrain.models.item_inputs import listed_items


class Column:
    """As much of a pandas Series as matters."""

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Any:
        return iter(["a", "b"])

    def to_list(self) -> list[str]:
        return ["a", "b"]


@pytest.mark.parametrize(
    "inputs",
    [
        ["a", "b"],
        ("a", "b"),
        UserList(["a", "b"]),
        deque(["a", "b"]),
        np.array(["a", "b"]),
        np.array(["a", "b"], dtype=object),
        {"a": 1, "b": 2}.keys(),
        {1: "a", 2: "b"}.values(),
        Column(),
    ],
)
def test_many_items(inputs: Any) -> None:
    items, single = listed_items(inputs)
    assert items == ["a", "b"]
    assert not single
    assert all(type(item) is str for item in items)


def test_generators_and_iterators_are_many_items() -> None:
    assert listed_items(text for text in "ab") == (["a", "b"], False)
    assert listed_items(iter("ab")) == (["a", "b"], False)
    assert listed_items(range(2)) == ([0, 1], False)


@pytest.mark.parametrize("inputs", ["text", b"bytes", {"image": 1}, None, 3.0, {1, 2}])
def test_one_item(inputs: Any) -> None:
    items, single = listed_items(inputs)
    assert single
    assert items[0] is inputs


@pytest.mark.parametrize("kind", [np.ones, torch.ones])
def test_numeric_arrays_hold_items_in_rows_from_two_dimensions_on(kind: Any) -> None:
    assert listed_items(kind(3))[1]
    items, single = listed_items(kind((2, 3)))
    assert not single
    assert [tuple(item.shape) for item in items] == [(3,), (3,)]
    assert len(listed_items(kind((4, 2, 3)))[0]) == 4


@pytest.mark.parametrize("inputs", [[], (), iter(()), np.array([], dtype=object), np.empty((0, 3)), torch.empty(0, 3)])
def test_nothing_is_many_items(inputs: Any) -> None:
    assert listed_items(inputs) == ([], False)
