from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simtrain.errors import DataError, ServableError
from simtrain.serving.index_points import check_points, check_vectors, read_points, write_points

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(st.text(), JSON, max_size=3), min_size=1, max_size=4), st.integers(1, 5))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_points_are_read_as_they_were_written(tmp_path: Path, payloads: list[dict[str, Any]], dim: int) -> None:
    vectors = np.random.default_rng(0).normal(size=(len(payloads), dim)).astype(np.float32)
    write_points(check_points(vectors, payloads, None), tmp_path)
    read = read_points(tmp_path)
    np.testing.assert_array_equal(read.vectors, vectors)
    assert list(read.payloads) == payloads
    assert list(read.ids) == list(range(len(payloads)))


@pytest.mark.parametrize(
    "vectors",
    [
        [[1, 2], [3, 4]],
        np.array([[1, 2], [3, 4]], np.float64),
        np.array([[1, 3], [2, 4]], np.float16).T,
        torch.tensor([[1.0, 2], [3, 4]], requires_grad=True),
        torch.tensor([[1, 2], [3, 4]], dtype=torch.bfloat16),
    ],
)
def test_vectors_of_all_kinds_become_float32(vectors: Any) -> None:
    checked = check_vectors(vectors)
    assert checked.dtype == np.float32
    assert checked.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([["a", "b"]], r"vectors must be numbers of shape \(n, dim\), got list"),
        ([[1, 2], [3]], r"vectors must be numbers of shape \(n, dim\), got list"),
        (np.zeros((2, 2, 2)), r"vectors must have the shape \(n, dim\), got \(2, 2, 2\)"),
        (3.0, r"vectors must have the shape \(n, dim\), got \(\)"),
        ([[1, 2], [3, float("nan")]], r"vectors hold NaN or infinite values, first in row 1"),
        ([[1, 2], [3, 1e39]], r"vectors hold NaN or infinite values, first in row 1"),
        ([[1, 2, 3]], r"vectors must have 2 dimensions, as the index has, got 3"),
    ],
)
def test_wrong_vectors_are_named(vectors: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_vectors(vectors, 2)


def test_ids_are_integers_or_uuids() -> None:
    name = uuid.uuid4()
    points = check_points(np.eye(3), [{}] * 3, [np.int64(7), name, 2**64 - 1])
    assert list(points.ids) == [7, str(name), 2**64 - 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": np.zeros((0, 2)), "payloads": []}, r"an index needs at least one vector, got shape \(0, 2\)"),
        ({"vectors": np.zeros((2, 0))}, "an index needs at least one vector"),
        ({"payloads": [{}]}, "payloads must be one for each of the 2 vectors, got 1"),
        ({"ids": [1, 2, 3]}, "ids must be one for each of the 2 vectors, got 3"),
        ({"ids": [5, 5]}, "ids must all be different, 5 comes 2 times"),
        ({"ids": [5, -1]}, "id 1 must be an integer of 0 or more or a UUID, got -1"),
        ({"ids": [5, "doc-1"]}, "id 1 must be .* got 'doc-1'; put names of your own into the payload"),
        ({"ids": [5, True]}, "id 1 must be an integer"),
        ({"payloads": [{}, {"a": object()}]}, "payload 1 must hold JSON values only"),
        ({"payloads": [{}, {"a": float("nan")}]}, "payload 1 must hold JSON values only"),
        ({"payloads": [{}, {1: "a"}]}, "payload 1 must be a dict with texts as keys"),
        ({"payloads": [{}, "a"]}, "payload 1 must be a dict with texts as keys, got 'a'"),
    ],
)
def test_wrong_points_are_named(change: dict[str, Any], message: str) -> None:
    words: dict[str, Any] = {"vectors": np.eye(2), "payloads": [{}, {}], "ids": None, **change}
    check: Callable[..., Any] = getattr(check_points, "__wrapped__", check_points)
    with pytest.raises(DataError, match=message):
        check(**words)


@pytest.mark.parametrize("file", ["vectors.safetensors", "points.jsonl"])
def test_missing_and_truncated_files_are_named(tmp_path: Path, file: str) -> None:
    write_points(check_points(np.eye(3), [{"a": 1}] * 3, None), tmp_path)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[:-8])
    with pytest.raises(ServableError, match=f"{file} is damaged"):
        read_points(tmp_path)
    if file == "points.jsonl":
        (tmp_path / file).write_bytes(b"".join(content.splitlines(keepends=True)[:-1]))
        with pytest.raises(ServableError, match="payloads must be one for each of the 3 vectors, got 2"):
            read_points(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(ServableError, match=f"{file} is missing"):
        read_points(tmp_path)
