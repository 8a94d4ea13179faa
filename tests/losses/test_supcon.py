import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import reducers as pml_reducers
from torch.nn.functional import cosine_similarity

from simtrain.errors import ConfigError
from simtrain.losses import SupConLoss


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_groups(seed: int, n: int, n_groups: int) -> torch.Tensor:
    return torch.randint(n_groups, (n,), generator=torch.Generator().manual_seed(seed))


def brute_force(anchors, candidates, positive, negative, temperature):
    """Equation 2 of the paper, one logarithm at a time."""
    terms = []
    for a, anchor in enumerate(anchors):
        weights = [(cosine_similarity(anchor, candidate, dim=0) / temperature).exp() for candidate in candidates]
        every = [w for c, w in enumerate(weights) if positive[a, c] or negative[a, c]]
        logs = [(w / sum(every)).log() for c, w in enumerate(weights) if positive[a, c]]
        if logs:
            terms.append(-sum(logs) / len(logs))
    return torch.stack(terms).mean() if terms else (anchors * 0).sum()


def assert_same(value, expected, embeddings):
    torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-8)
    (got,), (wanted,) = torch.autograd.grad(value, embeddings), torch.autograd.grad(expected, embeddings)
    torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-8)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 9),
    n_groups=st.integers(1, 4),
    temperature=st.sampled_from([0.05, 0.1, 1.0]),
)
def test_a_batch_equals_the_papers_formula(seed, n, n_groups, temperature):
    embeddings, groups = draw(seed, n, 4).requires_grad_(), draw_groups(seed, n, n_groups)
    same, other = groups.unsqueeze(1) == groups, ~torch.eye(n, dtype=torch.bool)
    expected = brute_force(embeddings, embeddings, same & other, ~same, temperature)
    assert_same(SupConLoss(temperature)(embeddings, groups), expected, embeddings)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 6), m=st.integers(1, 9), with_own=st.booleans())
def test_a_memory_equals_the_papers_formula(seed, n, m, with_own):
    embeddings, memory = draw(seed, n, 3).requires_grad_(), draw(seed + 1, m, 3).requires_grad_()
    groups, memory_groups = draw_groups(seed, n, 3), draw_groups(seed + 1, m, 3)
    own = draw(seed + 2, n, m) > 0.5 if with_own else torch.zeros(n, m, dtype=torch.bool)
    same = groups.unsqueeze(1) == memory_groups
    expected = brute_force(embeddings, memory, same & ~own, ~same & ~own, 0.2)
    value = SupConLoss(0.2).memory_loss(embeddings, groups, memory, memory_groups, own if with_own else None)
    assert_same(value, expected, embeddings)
    assert torch.autograd.grad(value, memory, allow_unused=True) == (None,)


def test_gradcheck():
    embeddings, groups = draw(3, 7, 3).requires_grad_(), torch.tensor([0, 0, 0, 1, 1, 2, 3])
    assert torch.autograd.gradcheck(lambda x: SupConLoss(0.5)(x, groups), (embeddings,))


@pytest.mark.parametrize("seed", range(4))
def test_equals_pytorch_metric_learning(seed):
    embeddings, groups = draw(seed, 20, 6), torch.arange(20) % 5
    expected = pml_losses.SupConLoss(0.1, reducer=pml_reducers.MeanReducer())(embeddings, groups)
    torch.testing.assert_close(SupConLoss(0.1)(embeddings, groups), expected)


@pytest.mark.parametrize("groups", [[], [4], [1, 2, 3]], ids=["empty", "one item", "all differ"])
def test_without_a_positive_loss_and_gradient_are_zero(groups):
    embeddings = torch.randn(len(groups), 3, requires_grad=True)
    value = SupConLoss()(embeddings, torch.tensor(groups, dtype=torch.long))
    assert value.item() == 0
    (gradient,) = torch.autograd.grad(value, embeddings)
    assert (gradient == 0).all()


def test_one_class_is_spread_by_nothing():
    # Without negatives, positives compete with each other only: equal similarities, log(n - 1), no gradient.
    embeddings = torch.ones(5, 3, requires_grad=True)
    value = SupConLoss()(embeddings, torch.zeros(5, dtype=torch.long))
    torch.testing.assert_close(value, torch.tensor(4.0).log())
    (gradient,) = torch.autograd.grad(value, embeddings)
    torch.testing.assert_close(gradient, torch.zeros(5, 3), atol=1e-6, rtol=0)


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_a_collapsed_batch_has_a_finite_gradient(fill):
    embeddings = torch.full((6, 4), fill, requires_grad=True)
    value = SupConLoss(0.01)(embeddings, torch.tensor([0, 0, 1, 1, 2, 2]))
    torch.testing.assert_close(value, torch.tensor(5.0).log())
    (gradient,) = torch.autograd.grad(value, embeddings)
    assert gradient.isfinite().all()


def test_small_temperatures_do_not_overflow():
    embeddings = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    value = SupConLoss(1e-3)(embeddings, torch.tensor([0, 0, 1]))
    assert value.item() == pytest.approx((2000 + torch.tensor(2.0).log().item()) / 2, rel=1e-3)


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("temperature", [0, -1.0, float("inf"), None, True])
def test_wrong_temperatures_are_refused(temperature):
    with pytest.raises(
        ConfigError, match=f"SupConLoss: temperature must be a finite number above zero, got {temperature}"
    ):
        SupConLoss(temperature)
