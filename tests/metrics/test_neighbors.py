from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simtrain.errors import ConfigError, DataError
from simtrain.metrics import similarities, top_k


def full_sort(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    values, indices = scores.sort(dim=1, descending=True, stable=True)
    return values[:, :k], indices[:, :k]


def grid(seed: int, n: int, dim: int, span: int = 3) -> torch.Tensor:
    """Small integers: dot products are exact in float32, and many are tied."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-span, span + 1, (n, dim), generator=generator).float()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_queries=st.integers(1, 60),
    n_gallery=st.integers(1, 300),
    dim=st.integers(1, 4),
    span=st.integers(0, 3),
    k=st.integers(1, 320),
    budget=st.sampled_from([1, 60_000, 10**8]),
)
def test_equals_full_sort_with_ties_in_blocks(seed, n_queries, n_gallery, dim, span, k, budget):
    queries, gallery = grid(seed, n_queries, dim, span), grid(seed + 1, n_gallery, dim, span)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(similarities.TILES, "cpu", (48, 48))
        scores, indices = top_k(queries, gallery, k, distance="dot", memory_budget=budget)
    values, columns = full_sort(queries @ gallery.T, k)
    found = min(k, n_gallery)
    assert torch.equal(scores[:, :found], values)
    assert torch.equal(indices[:, :found], columns)
    assert (indices[:, found:] == -1).all()
    assert scores[:, found:].isneginf().all()


@pytest.mark.parametrize("distance", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_of_one_tile_equal_one_block_bit_for_bit(distance, dtype):
    torch.manual_seed(0)
    queries, gallery = torch.randn(250, 33, dtype=dtype), torch.randn(3500, 33, dtype=dtype)
    gallery[1700:1800] = gallery[:100]
    small = top_k(queries, gallery, 7, distance=distance, memory_budget=1)
    large = top_k(queries, gallery, 7, distance=distance, memory_budget=2**30)
    assert torch.equal(small[0], large[0])
    assert torch.equal(small[1], large[1])
    assert small[0].dtype == dtype


@pytest.mark.parametrize("distance", ["cosine", "dot", "euclidean"])
def test_matches_float64_reference(distance):
    torch.manual_seed(1)
    queries, gallery = torch.randn(40, 16).double(), torch.randn(700, 16).double()
    if distance == "cosine":
        reference = torch.nn.functional.normalize(queries) @ torch.nn.functional.normalize(gallery).T
    elif distance == "dot":
        reference = queries @ gallery.T
    else:
        reference = -(queries[:, None] - gallery).square().sum(-1).sqrt()
    values, columns = full_sort(reference, 9)
    scores, indices = top_k(queries, gallery, 9, distance=distance)
    assert torch.equal(indices, columns)
    torch.testing.assert_close(scores, values, rtol=1e-12, atol=1e-12)
    single, _ = top_k(queries.float(), gallery.float(), 9, distance=distance)
    torch.testing.assert_close(single.double(), values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [1, 7, 64, 129])
def test_duplicates_tie_and_stand_by_index(dtype, dim):
    torch.manual_seed(2)
    row = torch.randn(1, dim, dtype=dtype)
    gallery = row.repeat(2011, 1)
    scores, indices = top_k(torch.randn(5, dim, dtype=dtype), gallery, 2011)
    assert torch.equal(indices, torch.arange(2011).expand(5, -1))
    assert (scores == scores[:, :1]).all()
    _, indices = top_k(torch.randn(5, dim, dtype=dtype), gallery, 20)
    assert torch.equal(indices, torch.arange(20).expand(5, -1))


def test_near_points_far_from_the_origin_keep_their_order():
    gallery = 1000.0 + torch.tensor([[0.0], [3.0], [1.0], [2.0]]) * 2**-10
    _, indices = top_k(gallery[:1], gallery, 4, distance="euclidean")
    assert indices.tolist() == [[0, 2, 3, 1]]


def test_own_index_mask_and_function_leave_out_the_same():
    points = grid(3, 50, 4)
    own = top_k(points, points, 50, exclude=torch.arange(50))
    mask = top_k(points, points, 50, exclude=torch.eye(50, dtype=torch.bool))
    array = top_k(points, points, 50, exclude=np.eye(50, dtype=bool))
    function = top_k(points, points, 50, exclude=lambda q, g: q[:, None] == g, memory_budget=1)
    for other in (mask, array, function):
        assert torch.equal(own[0], other[0])
        assert torch.equal(own[1], other[1])
    assert not (own[1][:, :-1] == torch.arange(50)[:, None]).any()
    assert (own[1][:, -1] == -1).all()
    assert own[0][:, -1].isneginf().all()


def test_excluded_places_never_crowd_out_allowed_ones():
    points = torch.randn(20, 4)
    mask = torch.ones(20, 20, dtype=torch.bool)
    mask[:, 5] = False
    _, indices = top_k(points, points, 3, exclude=mask)
    assert torch.equal(indices, torch.tensor([5, -1, -1]).expand(20, -1))


def test_the_mask_is_not_changed():
    mask = torch.zeros(4, 4, dtype=torch.bool)
    top_k(torch.randn(4, 2), torch.randn(4, 2), 2, exclude=mask)
    assert not mask.any()


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_empty_sides(shape):
    scores, indices = top_k(torch.randn(shape[0], 3), torch.randn(shape[1], 3), 2)
    assert scores.shape == indices.shape == (shape[0], 2)
    assert (indices == -1).all()


def test_zero_rows_score_zero_and_huge_rows_do_not_overflow_under_cosine():
    gallery = torch.tensor([[0.0, 0.0], [3e38, 0.0], [-1e-42, 0.0]])
    scores, indices = top_k(torch.tensor([[1e-40, 0.0]]), gallery, 3)
    assert indices.tolist() == [[1, 0, 2]]
    torch.testing.assert_close(scores, torch.tensor([[1.0, 0.0, -1.0]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_scored_in_float32(dtype):
    points = torch.randn(30, 8).to(dtype)
    half, single = top_k(points, points, 4), top_k(points.float(), points.float(), 4)
    assert half[0].dtype == torch.float32
    assert torch.equal(half[1], single[1])


def test_numpy_read_only_and_mixed_precision():
    array = np.random.default_rng(0).standard_normal((30, 8))
    array.setflags(write=False)
    scores, indices = top_k(array.astype(np.float32), array, 4)
    assert scores.dtype == torch.float64
    assert indices[:, 0].tolist() == list(range(30))


def test_autocast_and_matmul_precision_do_not_round_scores():
    torch.manual_seed(3)
    points = torch.randn(64, 32, requires_grad=True)
    expected = top_k(points, points, 5)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores, indices = top_k(points, points, 5)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(scores, expected[0])
    assert torch.equal(indices, expected[1])
    assert not scores.requires_grad


def with_bad_row(value: float) -> torch.Tensor:
    points = torch.zeros(9000, 2)
    points[8123, 1] = value
    return points


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_first_bad_row_is_named(value):
    good, bad = torch.zeros(3, 2), with_bad_row(value)
    with pytest.raises(DataError, match="row 8123 of the queries holds NaN or infinity"):
        top_k(bad, good, 1)
    with pytest.raises(DataError, match="row 8123 of the gallery holds NaN or infinity"):
        top_k(good, bad, 1)


@pytest.mark.parametrize(
    ("queries", "gallery", "words", "error", "message"),
    [
        (torch.zeros(3), torch.zeros(3, 1), {}, DataError, r"shape \(rows, dim\) with dim > 0, got \(3,\)"),
        (torch.zeros(3, 0), torch.zeros(3, 0), {}, DataError, r"dim > 0, got \(3, 0\)"),
        (torch.zeros(3, 2).long(), torch.zeros(3, 2), {}, DataError, "queries must be floating point, got torch.int64"),
        (np.array([["a"]]), torch.zeros(3, 1), {}, DataError, "got an array of <U1"),
        (torch.zeros(3, 2), torch.zeros(3, 4), {}, DataError, "queries have 2 dimensions, the gallery has 4"),
        (torch.full((1, 2), 1e30), torch.ones(1, 2), {"distance": "dot"}, DataError, "overflow torch.float32"),
        (torch.zeros(3, 2), torch.zeros(3, 2), {"k": 0}, ConfigError, "k is a positive integer, got 0"),
        (torch.zeros(3, 2), torch.zeros(3, 2), {"distance": "cosin"}, ConfigError, "did you mean 'cosine'"),
        (torch.zeros(3, 2), torch.zeros(3, 2), {"memory_budget": 0}, ConfigError, "positive number of bytes, got 0"),
        (torch.zeros(3, 2), torch.zeros(3, 2), {"exclude": torch.arange(2)}, DataError, "must be 3 integers"),
        (
            torch.zeros(3, 2),
            torch.zeros(3, 2),
            {"exclude": torch.tensor([0, 3, 1])},
            DataError,
            "names gallery index 3",
        ),
        (
            torch.zeros(3, 2),
            torch.zeros(4, 2),
            {"exclude": torch.zeros(4, 3, dtype=torch.bool)},
            DataError,
            r"booleans of shape \(3, 4\), .*; got torch.bool of shape \(4, 3\)",
        ),
        (
            torch.zeros(3, 2),
            torch.zeros(4, 2),
            {"exclude": lambda q, g: None},
            DataError,
            r"exclude\(queries, gallery\) must be booleans of shape \(3, 4\), .* got NoneType",
        ),
    ],
)
def test_messages(queries, gallery, words, error, message):
    with pytest.raises(error, match=message):
        top_k(queries, gallery, **{"k": 1, **words})


def test_a_long_search_tells_how_far_it_is(capsys):
    points = grid(0, 700, 4)
    found = top_k(points, points, 3, distance="dot", memory_budget=1, show_progress=True)
    told = capsys.readouterr().err
    assert "searching: 192 of 700" in told
    assert "items/s" in told
    assert "left" in told
    quiet = top_k(points, points, 3, distance="dot", memory_budget=1, show_progress=False)
    assert capsys.readouterr().err == ""
    assert torch.equal(found[1], quiet[1])
