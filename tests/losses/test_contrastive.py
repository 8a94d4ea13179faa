import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import relu

from simtrain.errors import ConfigError
from simtrain.losses import ContrastiveLoss, pair_distances

NAMES = ["cosine", "euclidean", "squared_euclidean", "manhattan"]


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_integers(seed: int, high: int, *shape: int) -> torch.Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def as_loaded(n: int) -> torch.Tensor:
    return torch.arange(2 * n).view(2, n).T


def brute_force(embeddings, pairs, labels, subgroups, margin, distance, size_average):
    def d(a: int, b: int) -> torch.Tensor:
        return pair_distances(embeddings[a : a + 1], embeddings[b : b + 1], distance)[0]

    total = (embeddings * 0).sum()
    for (a, b), y in zip(pairs.tolist(), labels, strict=True):
        total = total + 0.5 * (y * d(a, b) ** 2 + (1 - y) * relu(margin - d(a, b)) ** 2)
        for row in (a, b):
            others = [d(row, c) for c in range(len(embeddings)) if subgroups[c] != subgroups[row]]
            if others:
                total = total + relu(margin - min(others)) ** 2
    return total / len(pairs) if size_average else total


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 6),
    n_subgroups=st.integers(1, 4),
    margin=st.sampled_from([0.3, 0.5, 3.0]),
    distance=st.sampled_from(NAMES),
    size_average=st.booleans(),
    loaded=st.booleans(),
)
def test_equals_the_papers_formula(seed, n, n_subgroups, margin, distance, size_average, loaded):
    embeddings = draw(seed, 2 * n, 4).requires_grad_()
    pairs = as_loaded(n) if loaded else draw_integers(seed + 1, 2 * n, n + 1, 2)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]] if not loaded else pairs
    if len(pairs) == 0:
        return
    labels, subgroups = draw(seed + 2, len(pairs)).sigmoid().round(decimals=1), draw_integers(seed, n_subgroups, 2 * n)
    value = ContrastiveLoss(margin, distance, size_average)(embeddings, pairs, labels, subgroups)
    expected = brute_force(embeddings, pairs, labels, subgroups, margin, distance, size_average)
    torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-8)
    (got,), (wanted,) = torch.autograd.grad(value, embeddings), torch.autograd.grad(expected, embeddings)
    torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-8)


def test_gradcheck():
    subgroups, labels = torch.tensor([1, 1, 2, 1, 1, 2]), torch.tensor([1.0, 0.0, 1.0])
    loss = ContrastiveLoss(1.0)
    embeddings = draw(3, 6, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, as_loaded(3), labels, subgroups), (embeddings,))


@pytest.mark.parametrize("subgroup", [0, 7])
def test_with_one_subgroup_only_labelled_pairs_count(subgroup):
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    value = ContrastiveLoss(margin=0.5)(embeddings, as_loaded(2), torch.tensor([1.0, 0.0]), torch.full((4,), subgroup))
    assert value.item() == (1 / 2 + 0.5**2 / 2) / 2


def test_separated_data_costs_nothing():
    embeddings = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    value = ContrastiveLoss()(embeddings, as_loaded(2), torch.ones(2), torch.tensor([1, 2, 1, 2]))
    assert value.item() == 0


@pytest.mark.parametrize("distance", NAMES)
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_a_collapsed_batch_has_a_finite_gradient(distance, fill):
    embeddings = torch.full((6, 4), fill, requires_grad=True)
    subgroups = torch.tensor([1, 2, 3, 1, 2, 3])
    value = ContrastiveLoss(0.5, distance)(embeddings, as_loaded(3), torch.tensor([1.0, 1.0, 0.0]), subgroups)
    (gradient,) = torch.autograd.grad(value, embeddings)
    assert value.isfinite()
    assert gradient.isfinite().all()


def test_without_pairs_loss_and_gradient_are_zero():
    embeddings = torch.randn(2, 3, requires_grad=True)
    no_pairs = torch.zeros(0, 2, dtype=torch.long)
    value = ContrastiveLoss()(embeddings, no_pairs, torch.zeros(0), torch.zeros(2, dtype=torch.long))
    assert value.item() == 0
    assert (torch.autograd.grad(value, embeddings)[0] == 0).all()


def test_dot_is_refused():
    with pytest.raises(ConfigError, match="ContrastiveLoss squares distances, and 'dot' may be below zero; use"):
        ContrastiveLoss(distance="dot")


@pytest.mark.usefixtures("without_type_checks")
def test_a_margin_of_zero_is_refused():
    with pytest.raises(ConfigError, match="ContrastiveLoss: margin must be a finite number above zero, got 0"):
        ContrastiveLoss(margin=0)
