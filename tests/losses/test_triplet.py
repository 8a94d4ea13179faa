import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning import distances as pml_distances
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners
from pytorch_metric_learning import reducers as pml_reducers
from torch.nn.functional import relu, softplus
from torch.utils._python_dispatch import TorchDispatchMode

from simtrain.errors import ConfigError
from simtrain.losses import Distance, TripletLoss, pair_distances

MININGS = ["hard", "semi_hard", "all"]
NAMES = [distance.value for distance in Distance]


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_groups(seed: int, n: int, n_groups: int) -> torch.Tensor:
    return torch.randint(n_groups, (n,), generator=torch.Generator().manual_seed(seed))


def brute_force(anchors, candidates, positive, negative, margin, distance, mining, soft):
    """The papers' formulas, one distance at a time."""

    def d(a: int, c: int) -> torch.Tensor:
        return pair_distances(anchors[a : a + 1], candidates[c : c + 1], distance)[0]

    def penalty(ap: torch.Tensor, an: torch.Tensor) -> torch.Tensor:
        return softplus(ap - an) if soft else relu(ap - an + margin)

    terms = []
    for a in range(len(anchors)):
        to_positives = [d(a, c) for c in range(len(candidates)) if positive[a, c]]
        to_negatives = [d(a, c) for c in range(len(candidates)) if negative[a, c]]
        if not to_positives or not to_negatives:
            continue
        if mining == "hard":
            terms.append(penalty(max(to_positives), min(to_negatives)))
        for ap in to_positives:
            if mining == "semi_hard":
                beyond = [an for an in to_negatives if an > ap]
                terms.append(penalty(ap, min(beyond) if beyond else max(to_negatives)))
            if mining == "all":
                values = [penalty(ap, an) for an in to_negatives]
                terms.extend(value for value in values if value > 0)
    return torch.stack(terms).mean() if terms else (anchors * 0).sum()


def masks(groups, candidate_groups, own):
    same = groups.unsqueeze(1) == candidate_groups
    return same & ~own, ~same & ~own


def assert_same(value, expected, inputs, scale=1.0):
    torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-8)
    gradients = torch.autograd.grad(value, inputs), torch.autograd.grad(expected, inputs)
    for got, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("mining", MININGS)
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 9),
    dim=st.integers(2, 5),
    n_groups=st.integers(1, 4),
    margin=st.sampled_from([0.0, 0.3, 2.0]),
    distance=st.sampled_from(NAMES),
)
def test_a_batch_equals_the_papers_formula(mining, soft, seed, n, dim, n_groups, margin, distance):
    embeddings, groups = draw(seed, n, dim).requires_grad_(), draw_groups(seed, n, n_groups)
    positive, negative = masks(groups, groups, torch.eye(n, dtype=torch.bool))
    expected = brute_force(embeddings, embeddings, positive, negative, margin, distance, mining, soft)
    assert_same(TripletLoss(margin, distance, mining, soft)(embeddings, groups), expected, [embeddings])


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("mining", MININGS)
@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 6),
    m=st.integers(1, 9),
    distance=st.sampled_from(NAMES),
    with_own=st.booleans(),
)
def test_a_memory_equals_the_papers_formula(mining, soft, seed, n, m, distance, with_own):
    embeddings, memory = draw(seed, n, 3).requires_grad_(), draw(seed + 1, m, 3).requires_grad_()
    groups, memory_groups = draw_groups(seed, n, 3), draw_groups(seed + 1, m, 3)
    own = draw(seed + 2, n, m) > 0.5 if with_own else torch.zeros(n, m, dtype=torch.bool)
    positive, negative = masks(groups, memory_groups, own)
    expected = brute_force(embeddings, memory, positive, negative, 0.4, distance, mining, soft)
    loss = TripletLoss(0.4, distance, mining, soft)
    value = loss.memory_loss(embeddings, groups, memory, memory_groups, own if with_own else None)
    assert_same(value, expected, [embeddings])
    assert torch.autograd.grad(value, memory, allow_unused=True) == (None,)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("mining", MININGS)
def test_gradcheck(mining, soft):
    embeddings, groups = draw(3, 8, 3).requires_grad_(), torch.tensor([0, 0, 0, 1, 1, 2, 2, 3])
    assert torch.autograd.gradcheck(lambda x: TripletLoss(0.5, "cosine", mining, soft)(x, groups), (embeddings,))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mining", ["hard", "all"])
def test_equals_pytorch_metric_learning(mining, seed):
    embeddings, groups = draw(seed, 24, 6), draw_groups(seed, 24, 5)
    distance = pml_distances.LpDistance(normalize_embeddings=False)
    if mining == "hard":
        peer = pml_losses.TripletMarginLoss(margin=0.7, distance=distance, reducer=pml_reducers.MeanReducer())
        expected = peer(embeddings, groups, pml_miners.BatchHardMiner(distance=distance)(embeddings, groups))
    else:
        expected = pml_losses.TripletMarginLoss(margin=0.7, distance=distance)(embeddings, groups)
    value = TripletLoss(0.7, "euclidean", mining)(embeddings, groups)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("distance", NAMES)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("mining", MININGS)
def test_peers_10_a_collapsed_batch_has_a_finite_gradient(mining, soft, distance):
    embeddings = torch.ones(6, 4, requires_grad=True)
    value = TripletLoss(0.5, distance, mining, soft)(embeddings, torch.tensor([0, 0, 1, 1, 2, 2]))
    torch.testing.assert_close(value.item(), torch.tensor(0.0).exp().log1p().item() if soft else 0.5)
    (gradient,) = torch.autograd.grad(value, embeddings)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("distance", NAMES)
@pytest.mark.parametrize("mining", MININGS)
def test_peers_10_duplicates_and_zero_vectors_have_finite_gradients(mining, distance):
    embeddings = draw(0, 4, 3).float().repeat(2, 1)
    embeddings[[0, 3]] = 0
    embeddings.requires_grad_()
    value = TripletLoss(0.5, distance, mining)(embeddings, torch.tensor([0, 0, 1, 1, 0, 1, 1, 2]))
    (gradient,) = torch.autograd.grad(value, embeddings)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    "groups", [[], [4], [1, 1, 1], [1, 2, 3]], ids=["empty", "one item", "one class", "all differ"]
)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("mining", MININGS)
def test_without_a_triplet_loss_and_gradient_are_zero(mining, soft, groups):
    embeddings = torch.randn(len(groups), 3, requires_grad=True)
    value = TripletLoss(mining=mining, soft=soft)(embeddings, torch.tensor(groups, dtype=torch.long))
    assert value.item() == 0
    (gradient,) = torch.autograd.grad(value, embeddings)
    assert (gradient == 0).all()


def test_peers_10_hardest_positives_by_dot_product_are_not_zero():
    # A product with a 0/1 mask would take the masked 0 for the largest of two negative distances.
    embeddings = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    value = TripletLoss(margin=5.0, distance="dot")(embeddings, torch.tensor([0, 0, 1]))
    assert value.item() == 3.0  # both anchors: -2 - 0 + 5


def test_peers_10_semi_hard_uses_the_anchors_own_distances():
    # Anchor 0: positive at 1, negatives at 0.5 and 1.2: the latter is semi-hard, whatever other anchors see.
    embeddings = torch.tensor([[0.0], [1.0], [0.5], [-1.2]])
    memory, memory_groups = embeddings[1:], torch.tensor([0, 1, 2])
    value = TripletLoss(0.5, "euclidean", "semi_hard").memory_loss(
        embeddings[:1], torch.tensor([0]), memory, memory_groups
    )
    assert value.item() == pytest.approx(1 - 1.2 + 0.5)


def test_soft_ignores_the_margin():
    embeddings, groups = draw(0, 9, 3), torch.arange(9) % 3
    assert TripletLoss(0.1, soft=True)(embeddings, groups) == TripletLoss(9.0, soft=True)(embeddings, groups)


class LargestTensor(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("mining", MININGS)
def test_memory_is_quadratic_in_the_batch(mining, soft):
    embeddings, groups = draw(0, 64, 4).requires_grad_(), torch.arange(64) % 4
    with LargestTensor() as largest:
        TripletLoss(mining=mining, soft=soft)(embeddings, groups).backward()
    assert 64 * 64 <= largest.numel <= 2 * 64 * 64


def test_active_triplets_in_float32_agree_with_float64():
    embeddings, groups = draw(0, 200, 16), torch.arange(200) % 10
    for distance in NAMES:
        loss = TripletLoss(0.2, distance, "all")
        torch.testing.assert_close(
            loss(embeddings.float(), groups).double(), loss(embeddings, groups), rtol=1e-4, atol=0
        )


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"margin": -0.1}, "TripletLoss: margin must be a finite number zero or above, got -0.1"),
        ({"margin": float("nan")}, "TripletLoss: margin must be a finite number zero or above, got nan"),
        ({"margin": "0.5"}, "TripletLoss: margin must be a finite number zero or above, got '0.5'"),
        ({"mining": "semihard"}, "TripletLoss: unknown mining 'semihard'; did you mean 'semi_hard'\\? Accepted: 'all'"),
        ({"distance": "l2"}, "unknown distance 'l2'; accepted: 'cosine'"),
    ],
)
def test_wrong_settings_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        TripletLoss(**words)


@pytest.mark.parametrize("mining", MININGS)
def test_a_triplet_exactly_at_the_margin_is_not_active(mining):
    embeddings = torch.ones(4, 4, requires_grad=True)
    value = TripletLoss(0, "dot", mining)(embeddings, torch.tensor([0, 0, 1, 1]))
    assert value.item() == 0
    assert (torch.autograd.grad(value, embeddings)[0] == 0).all()
