from __future__ import annotations

import sys

import pytest
import torch

from simtrain.errors import ConfigError, MissingExtraError
from simtrain.metrics import top_k


@pytest.mark.parametrize("distance", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize(("n", "k"), [(200, 5), (3, 5), (2500, 70)])
def test_faiss_finds_the_same(distance, n, k):
    torch.manual_seed(0)
    queries, gallery = torch.randn(40, 8), torch.randn(n, 8)
    scores, indices = top_k(queries, gallery, k, distance=distance)
    by_faiss = top_k(queries, gallery, k, distance=distance, backend="faiss")
    torch.testing.assert_close(by_faiss[0], scores, rtol=1e-5, atol=1e-4)
    # Items that are as far away in all but the last digits may stand the other way round.
    assert (by_faiss[1] == indices).double().mean() > 0.99
    assert all(len(set(row)) == len(row) for row in by_faiss[1][:, : min(n, k)].tolist())


def test_own_items_are_left_out_and_ties_stand_by_index():
    points = torch.eye(4)[torch.arange(1200) % 4]
    own = torch.arange(1200)
    expected = top_k(points, points, 299, exclude=own)
    found = top_k(points, points, 299, exclude=own, backend="faiss")
    assert torch.equal(found[1], expected[1])
    nothing_left = top_k(points[:1], points[:1], 2, exclude=torch.tensor([0]), backend="faiss")
    assert nothing_left[1].tolist() == [[-1, -1]]
    assert nothing_left[0].isneginf().all()


@pytest.mark.parametrize(
    ("words", "dtype", "message"),
    [
        ({"backend": "fais"}, torch.float32, "unknown backend 'fais'; did you mean 'faiss'?"),
        ({"backend": "faiss", "exclude": torch.eye(3).bool()}, torch.float32, "leaves out a query's own item at most"),
        ({"backend": "faiss"}, torch.float64, "takes float32 embeddings on the CPU, got torch.float64"),
    ],
)
def test_wrong_arguments_are_told(words, dtype, message):
    points = torch.randn(3, 2, dtype=dtype)
    with pytest.raises(ConfigError, match=message):
        top_k(points, points, 1, **words)


def test_a_missing_package_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'simtrain\[index\]'"):
        top_k(torch.randn(3, 2), torch.randn(3, 2), 1, backend="faiss")
