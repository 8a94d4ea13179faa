from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simtrain.encoders import PrecomputedEncoder
from simtrain.errors import ConfigError, DataError, ServableError
from simtrain.heads import EmptyHead
from simtrain.models import SimilarityModel
from simtrain.serving import QdrantIndex
from simtrain.serving.qdrant_memory import scaled


def vectors_of(n: int, dim: int = 8, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def brute_force(queries: Any, vectors: Any, distance: str) -> Any:
    """Scores in float64 of each query with each vector; larger is nearer."""
    q, v = queries.astype(np.float64), vectors.astype(np.float64)
    if distance == "euclidean":
        return -np.linalg.norm(q[:, None] - v[None], axis=2)
    if distance == "cosine":
        q, v = q / np.linalg.norm(q, axis=1, keepdims=True), v / np.linalg.norm(v, axis=1, keepdims=True)
    return q @ v.T


@pytest.mark.parametrize("distance", ["cosine", "dot", "euclidean"])
def test_search_is_exact(tmp_path: Path, distance: str) -> None:
    vectors, queries = vectors_of(3000), vectors_of(20, seed=1)
    built = QdrantIndex.create(tmp_path / "index", vectors, [{"row": i} for i in range(3000)], distance=distance)
    expected = brute_force(queries, vectors, distance)
    for index in (built, QdrantIndex.open(tmp_path / "index")):
        assert len(index) == 3000
        for hits, scores in zip(index.search(queries, k=25), expected, strict=True):
            assert [hit.id for hit in hits] == np.argsort(-scores)[:25].tolist()
            assert [hit.payload for hit in hits] == [{"row": hit.id} for hit in hits]
            sign = -1 if distance == "euclidean" else 1
            np.testing.assert_allclose([sign * hit.score for hit in hits], np.sort(scores)[::-1][:25], atol=1e-4)


def test_many_points_give_no_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index = QdrantIndex.create(tmp_path / "index", vectors_of(20_001, 2), [{}] * 20_001)
        assert len(index.search(vectors_of(1, 2), k=3)[0]) == 3


@given(
    st.lists(
        st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=2, max_size=2),
        min_size=1,
        max_size=5,
    )
)
@settings(deadline=None)
def test_scaled_vectors_have_length_one_or_zero(vectors: list[list[float]]) -> None:
    lengths = np.linalg.norm(scaled(np.array(vectors, np.float32), "cosine").astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, [float(any(np.float32(x) for x in vector)) for vector in vectors], atol=1e-6)


def test_one_query_none_and_more_hits_than_items(tmp_path: Path) -> None:
    with QdrantIndex.create(tmp_path / "index", [[1, 0], [0, 1]], [{}, {}], ids=[7, 9]) as index:
        assert [[hit.id for hit in hits] for hits in index.search(torch.tensor([1.0, 0.2]), k=10)] == [[7, 9]]
        assert index.search(np.empty((0, 2))) == []
        assert index.search([0.0, 0.0], k=1)[0][0].score == 0.0


@pytest.mark.parametrize(
    ("queries", "k", "error", "message"),
    [
        ([[1, 2, 3]], 1, DataError, "vectors must have 2 dimensions, as the index has, got 3"),
        ([[1, float("inf")]], 1, DataError, "vectors hold NaN or infinite values, first in row 0"),
        ([[1, 2]], 0, ConfigError, "k must be a positive integer, got 0"),
    ],
)
def test_wrong_queries_are_named(tmp_path: Path, queries: Any, k: int, error: type[Exception], message: str) -> None:
    index = QdrantIndex.create(tmp_path / "index", [[1, 0]], [{}])
    with pytest.raises(error, match=message):
        index.search(queries, k)


def test_a_closed_index_says_so(tmp_path: Path) -> None:
    with QdrantIndex.create(tmp_path / "index", [[1, 0]], [{}]) as index:
        pass
    index.close()
    with pytest.raises(ServableError, match="is closed; open it again"):
        index.search([[1, 0]])


def test_an_index_can_be_open_many_times_copied_and_holds_no_pickle(tmp_path: Path) -> None:
    first = QdrantIndex.create(tmp_path / "index", [[1, 0], [0, 1]], [{"a": 1}, {"a": 2}])
    shutil.copytree(tmp_path / "index", tmp_path / "copy")
    second, third = QdrantIndex.open(tmp_path / "index"), QdrantIndex.open(tmp_path / "copy")
    assert first.search([[0, 1]]) == second.search([[0, 1]]) == third.search([[0, 1]])
    suffixes = {file.suffix for file in (tmp_path / "index").rglob("*") if file.is_file()}
    assert suffixes == {".json", ".jsonl", ".safetensors"}


def test_an_index_is_replaced_but_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "index"
    path.mkdir()
    QdrantIndex.create(path, [[1, 0]], [{"a": "old"}])
    QdrantIndex.create(path, [[1, 0, 0]], [{"a": "new"}])
    assert QdrantIndex.open(path).search([[1, 0, 0]])[0][0].payload == {"a": "new"}
    assert len(list(path.iterdir())) == 2
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_text("")
    for target in (tmp_path / "photos", tmp_path / "photos" / "me.jpg"):
        with pytest.raises(ServableError, match="holds something that is no index, and is not replaced"):
            QdrantIndex.create(target, [[1, 0]], [{}])
    assert [file.name for file in (tmp_path / "photos").iterdir()] == ["me.jpg"]


def test_a_failed_build_leaves_the_former_index(tmp_path: Path) -> None:
    QdrantIndex.create(tmp_path / "index", [[1, 0]], [{"a": "old"}])
    with pytest.raises(DataError, match="payload 0 must hold JSON values only"):
        QdrantIndex.create(tmp_path / "index", [[1, 0]], [{"a": b"new"}])
    assert QdrantIndex.open(tmp_path / "index").search([[1, 0]])[0][0].payload == {"a": "old"}
    with pytest.raises(ConfigError, match="unknown distance 'cosin'; did you mean 'cosine'"):
        QdrantIndex.create(tmp_path / "other", [[1, 0]], [{}], distance="cosin")
    assert not (tmp_path / "other").exists()


def saved_model(path: Path) -> Path:
    SimilarityModel(PrecomputedEncoder(2), EmptyHead(2)).save(path)
    return path


def test_model_and_index_are_moved_together(tmp_path: Path) -> None:
    model = saved_model(tmp_path / "run" / "model")
    index = QdrantIndex.create(tmp_path / "run" / "index", [[1, 0]], [{}], model_path=model)
    assert index.info["model"] == "../model"
    assert index.model_path == model
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    moved = QdrantIndex.open(tmp_path / "elsewhere" / "index")
    assert moved.model_path == tmp_path / "elsewhere" / "model"
    assert moved.search([[1, 0]])[0][0].id == 0


def test_a_model_that_lies_elsewhere_is_kept_by_its_full_path(tmp_path: Path) -> None:
    model = saved_model(tmp_path / "models" / "one")
    index = QdrantIndex.create(tmp_path / "indexes" / "one", [[1, 0]], [{}], model_path=model)
    assert index.info["model"] == str(model)
    assert index.model_path == model


def test_a_model_that_was_saved_again_is_noticed(tmp_path: Path) -> None:
    model = saved_model(tmp_path / "model")
    index = QdrantIndex.create(tmp_path / "index", [[1, 0]], [{}], model_path=model)
    index.search([[1, 0]])
    saved_model(model)
    for stale in (index, QdrantIndex.open(tmp_path / "index")):
        with pytest.raises(ServableError, match=r"was saved again after the index .* was built from it"):
            stale.search([[1, 0]])
    shutil.rmtree(model)
    assert len(index.search([[1, 0]])) == 1


def test_a_model_path_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ServableError, match=r"config\.json is missing"):
        QdrantIndex.create(tmp_path / "index", [[1, 0]], [{}], model_path=tmp_path)
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "x"}, "is not of the format 'simtrain-index', it says 'x'"),
        ({"count": 3}, "should hold 3 vectors of 2 dimensions, it holds 1 of 2"),
        ({"distance": "far"}, "has the unknown distance 'far'"),
        ({"parts": "../.."}, "names no parts folder"),
    ],
)
def test_damaged_indexes_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    QdrantIndex.create(tmp_path, [[1, 0]], [{}])
    info = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps({**info, **change}))
    with pytest.raises(ServableError, match=message):
        QdrantIndex.open(tmp_path)


def test_a_missing_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServableError, match="there is no folder"):
        QdrantIndex.open(tmp_path / "nowhere")
    with pytest.raises(ServableError, match=r"index\.json is missing"):
        QdrantIndex.open(tmp_path)
