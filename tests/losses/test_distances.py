import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from simtrain.errors import ConfigError
from simtrain.losses import Distance, distance_matrix, pair_distances, similarity_matrix
from simtrain.losses.distances import listed_distances
from simtrain.losses.unit_vectors import unit_vectors

NAMES = [distance.value for distance in Distance]
SCIPY = {"cosine": "cosine", "euclidean": "euclidean", "squared_euclidean": "sqeuclidean", "manhattan": "cityblock"}


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def reference(a: torch.Tensor, b: torch.Tensor, name: str) -> np.ndarray:
    if name == "dot":
        return -(a.double().numpy() @ b.double().numpy().T)
    return cdist(a.double().numpy(), b.double().numpy(), SCIPY[name])


def test_five_distances_are_tested():
    assert len(NAMES) == 5


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(0, 30), m=st.integers(1, 30), dim=st.integers(1, 9))
def test_matrix_equals_scipy(name, seed, n, m, dim):
    a, b = draw(seed, n, dim), draw(seed + 1, m, dim)
    if n == 0:
        assert distance_matrix(a, b, name).shape == (0, m)
    else:
        np.testing.assert_allclose(distance_matrix(a, b, name).numpy(), reference(a, b, name), atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 20), dim=st.integers(1, 9), scale=st.sampled_from([1e-3, 1, 1e3]))
def test_pair_form_equals_matrix_form_in_value_and_gradient(name, seed, n, dim, scale):
    a, b = draw(seed, n, dim) * scale, draw(seed + 1, n, dim) * scale
    weights = draw(seed + 2, n)
    results = []
    for form in (lambda a, b: pair_distances(a, b, name), lambda a, b: distance_matrix(a, b, name).diagonal()):
        a, b = a.detach().requires_grad_(), b.detach().requires_grad_()
        distances = form(a, b)
        results.append((distances, *torch.autograd.grad((distances * weights).sum(), [a, b])))
    for pair, matrix in zip(*results, strict=True):
        torch.testing.assert_close(pair, matrix, rtol=1e-7, atol=1e-10 * scale)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_the_derivatives(name):
    a, b = draw(0, 4, 3).requires_grad_(), draw(1, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: distance_matrix(a, b, name), (a, b))
    assert torch.autograd.gradcheck(lambda a, b: pair_distances(a, b, name), (a, b))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["euclidean", "squared_euclidean", "manhattan"])
def test_equal_rows_are_at_zero_with_a_zero_gradient(name, dtype):
    a = draw(0, 1, 50, dtype=dtype).repeat(40, 1).requires_grad_()
    for distances in (distance_matrix(a, a, name), pair_distances(a, a, name)):
        assert (distances == 0).all()
        (gradient,) = torch.autograd.grad(distances.sum(), a)
        assert (gradient == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(5))
def test_duplicates_among_others_are_at_euclidean_zero(dtype, seed):
    rows = draw(seed, 60, 128, dtype=dtype)
    matrix = distance_matrix(rows, rows.clone(), "euclidean")
    assert (matrix.diagonal() == 0).all()
    assert (matrix + torch.eye(60, dtype=dtype) > 0).all()


def test_euclidean_matrix_keeps_its_precision_far_from_the_origin():
    rows = draw(0, 30, 8, dtype=torch.float32) + 1000
    expected = torch.from_numpy(reference(rows, rows, "euclidean"))
    torch.testing.assert_close(distance_matrix(rows, rows, "euclidean").double(), expected, rtol=0, atol=1e-3)


def test_a_zero_vector_has_no_direction():
    a, b = torch.zeros(1, 3, requires_grad=True), draw(0, 2, 3, dtype=torch.float32)
    distances = distance_matrix(a, b, "cosine")
    assert distances.tolist() == [[1.0, 1.0]]
    (gradient,) = torch.autograd.grad(distances.sum(), a)
    assert (gradient == 0).all()


def test_dot_distance_is_the_negated_similarity_without_clamping():
    a, b = draw(0, 5, 3), draw(1, 6, 3)
    assert torch.equal(distance_matrix(a, b, "dot"), -similarity_matrix(a, b, "dot"))
    assert (distance_matrix(a, b, "dot") < 0).any()


@pytest.mark.parametrize("name", NAMES)
def test_similarity_and_distance_rank_alike(name):
    a, b = draw(0, 5, 3), draw(1, 6, 3)
    by_distance, by_similarity = distance_matrix(a, b, name), similarity_matrix(a, b, name)
    assert torch.equal(by_distance.argsort(dim=1), by_similarity.argsort(dim=1, descending=True))
    offset = 1.0 if name == "cosine" else 0.0
    torch.testing.assert_close(by_distance, offset - by_similarity)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_widened(name, dtype):
    a, b = draw(0, 6, 16, dtype=dtype), draw(1, 5, 16, dtype=dtype)
    expected = torch.from_numpy(reference(a, b, name)).float()
    for form in (distance_matrix(a, b, name), distance_matrix(a.float(), b, name)):
        assert form.dtype == torch.float32
        torch.testing.assert_close(form, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pair_distances(a[:5], b, name), expected.diagonal(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_large_float16_entries_do_not_overflow(name):
    a = torch.full((2, 64), 1000.0, dtype=torch.float16)  # the squared norm is 6.4e7, float16 ends at 65,504
    assert distance_matrix(a, -a, name).isfinite().all()
    assert pair_distances(a, -a, name).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_autocast_changes_nothing(name):
    a, b = draw(0, 6, 16, dtype=torch.float32), draw(1, 5, 16, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = distance_matrix(a, b, name)
    assert torch.equal(inside, distance_matrix(a, b, name))


def test_the_result_may_be_changed_in_place():
    rows = draw(0, 4, 3)
    for name in NAMES:
        before = rows.clone()
        similarity_matrix(rows, rows, name).mul_(0)
        assert torch.equal(rows, before)


def test_an_unknown_distance_is_refused():
    accepted = "Accepted: 'cosine', 'dot', 'euclidean', 'manhattan', 'squared_euclidean'"
    with pytest.raises(ConfigError, match=f"unknown distance 'cosin'; did you mean 'cosine'\\? {accepted}"):
        distance_matrix(torch.zeros(1, 1), torch.zeros(1, 1), "cosin")


def test_unit_vectors_have_first_and_second_derivatives():
    x = draw(0, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(unit_vectors, x)
    assert torch.autograd.gradgradcheck(unit_vectors, x)


@pytest.mark.parametrize("name", NAMES)
def test_listed_distances_are_the_same_by_pairs_and_by_the_matrix(name):
    x = draw(0, 5, 3).requires_grad_()
    rows, columns = torch.arange(5).repeat(5), torch.arange(5).repeat_interleave(5)
    whole, few = listed_distances(x, rows, columns, name), listed_distances(x, rows[:3], columns[:3], name)
    torch.testing.assert_close(whole, pair_distances(x[rows], x[columns], name), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(few, whole[:3], rtol=1e-8, atol=1e-8)
