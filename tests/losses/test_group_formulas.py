"""The group losses without class weights against their papers, within a batch and against a memory."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners
from pytorch_metric_learning import reducers as pml_reducers

from simtrain.errors import ConfigError
from simtrain.losses import CircleLoss, FastAPLoss, MultiSimilarityLoss, NTXentLoss, OnlineContrastiveLoss
from tests.losses import group_formulas as formulas
from tests.losses.group_formulas import draw, draw_groups, masks

# The loss, its formula, and the numbers that both get.
CASES = {
    "circle, faces": (CircleLoss, formulas.circle, (0.25, 64.0)),
    "circle, retrieval": (CircleLoss, formulas.circle, (0.4, 80.0)),
    "multi-similarity, paper": (MultiSimilarityLoss, formulas.multi_similarity, (2.0, 50.0, 1.0, 0.1)),
    "multi-similarity, code": (MultiSimilarityLoss, formulas.multi_similarity, (2.0, 40.0, 0.5, 0.3)),
    "multi-similarity, all": (MultiSimilarityLoss, formulas.multi_similarity, (2.0, 10.0, 0.5, None)),
    "nt-xent": (NTXentLoss, formulas.ntxent, (0.1,)),
    "nt-xent, warm": (NTXentLoss, formulas.ntxent, (1.0,)),
    "fast-ap": (FastAPLoss, formulas.fast_ap, (10,)),
    "fast-ap, one bin": (FastAPLoss, formulas.fast_ap, (1,)),
    "fast-ap, many bins": (FastAPLoss, formulas.fast_ap, (37,)),
    **{
        f"online contrastive, {mining}, {distance}": (
            OnlineContrastiveLoss,
            formulas.online_contrastive,
            (margin, distance, mining),
        )
        for mining in ("hard", "all")
        for distance, margin in {"cosine": 0.8, "euclidean": 2.0, "squared_euclidean": 3.0, "manhattan": 4.0}.items()
    },
}


def assert_same(value, expected, embeddings):
    torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-8)
    (got,), (wanted,) = torch.autograd.grad(value, embeddings), torch.autograd.grad(expected, embeddings)
    torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 8),
    dim=st.integers(2, 5),
    n_groups=st.integers(1, 4),
)
def test_a_batch_equals_the_papers_formula(case, seed, n, dim, n_groups):
    kind, formula, numbers = CASES[case]
    embeddings, groups = draw(seed, n, dim).requires_grad_(), draw_groups(seed, n, n_groups)
    positive, negative = masks(groups, groups, torch.eye(n, dtype=torch.bool))
    expected = formula(embeddings, embeddings, positive, negative, *numbers)
    assert_same(kind(*numbers)(embeddings, groups), expected, embeddings)


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 6), m=st.integers(1, 8), with_own=st.booleans())
def test_a_memory_equals_the_papers_formula(case, seed, n, m, with_own):
    kind, formula, numbers = CASES[case]
    embeddings, memory = draw(seed, n, 3).requires_grad_(), draw(seed + 1, m, 3).requires_grad_()
    groups, memory_groups = draw_groups(seed, n, 3), draw_groups(seed + 1, m, 3)
    own = draw(seed + 2, n, m) > 0.5 if with_own else torch.zeros(n, m, dtype=torch.bool)
    positive, negative = masks(groups, memory_groups, own)
    expected = formula(embeddings, memory, positive, negative, *numbers)
    value = kind(*numbers).memory_loss(embeddings, groups, memory, memory_groups, own if with_own else None)
    assert_same(value, expected, embeddings)
    assert torch.autograd.grad(value, memory, allow_unused=True) == (None,)


@pytest.mark.parametrize("case", CASES)
def test_duplicates_equal_the_papers_formula(case):
    kind, formula, numbers = CASES[case]
    if "fast-ap" in case:
        pytest.skip("a distance of 0 is on a corner of the histogram, where either side's slope is one")
    rows = draw(0, 3, 4)
    embeddings, groups = torch.cat([rows, 2 * rows]).requires_grad_(), torch.tensor([0, 0, 1, 0, 1, 1])
    positive, negative = masks(groups, groups, torch.eye(6, dtype=torch.bool))
    if "euclidean" in case or "manhattan" in case:
        rows = torch.cat([draw(0, 3, 4), draw(0, 3, 4) + 1e-3])
        embeddings = rows.requires_grad_()
    expected = formula(embeddings, embeddings, positive, negative, *numbers)
    assert_same(kind(*numbers)(embeddings, groups), expected, embeddings)


@pytest.mark.parametrize(
    "loss",
    [
        CircleLoss(0.25, 8),
        MultiSimilarityLoss(beta=4, epsilon=None),
        NTXentLoss(0.5),
        FastAPLoss(5),
        OnlineContrastiveLoss(mining="all"),
    ],
    ids=repr,
)
def test_gradcheck(loss):
    if isinstance(loss, CircleLoss):
        pytest.skip("its weights are constants for the gradient, not for the value")
    embeddings, groups = draw(3, 7, 3).requires_grad_(), torch.tensor([0, 0, 0, 1, 1, 2, 3])
    assert torch.autograd.gradcheck(lambda x: loss(x, groups), (embeddings,))


@pytest.mark.parametrize("seed", range(3))
def test_equals_pytorch_metric_learning(seed):
    embeddings, groups = draw(seed, 24, 6), torch.arange(24) % 5
    mean = pml_reducers.MeanReducer()
    peer = pml_losses.CircleLoss(0.4, 80, reducer=mean)(embeddings, groups)
    torch.testing.assert_close(CircleLoss(0.4, 80)(embeddings, groups), peer)
    mined = pml_miners.MultiSimilarityMiner(0.1)(embeddings, groups)
    peer = pml_losses.MultiSimilarityLoss(2, 50, 0.5)(embeddings, groups, mined)
    torch.testing.assert_close(MultiSimilarityLoss(2, 50, 0.5)(embeddings, groups), peer)
    peer = pml_losses.NTXentLoss(0.1)(embeddings, groups)
    torch.testing.assert_close(NTXentLoss(0.1)(embeddings, groups), peer)
    peer = pml_losses.FastAPLoss(10, reducer=mean)(embeddings, groups)
    torch.testing.assert_close(FastAPLoss(10)(embeddings, groups), peer)


def test_nt_xent_of_two_views_is_simclr():
    # Equation 1 over 2N views: each has one positive, and all other 2N - 2 views are its negatives.
    views, tau = draw(0, 8, 4), 0.5
    unit = views / views.norm(dim=1, keepdim=True)
    logits = (unit @ unit.T / tau).fill_diagonal_(-torch.inf)
    partner = (torch.arange(8) + 4) % 8
    expected = torch.nn.functional.cross_entropy(logits, partner)
    torch.testing.assert_close(NTXentLoss(tau)(views, torch.arange(8) % 4), expected)


def test_peers_8_online_contrastive_does_not_count_the_anchor_as_its_own_negative():
    separated = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    for mining in ("hard", "all"):
        loss = OnlineContrastiveLoss(margin=0.5, mining=mining)
        assert loss(separated, torch.tensor([0, 0, 1, 1])).item() == 0
        assert loss.figures()["n_active"] == 0


def test_peers_9_circle_loss_weighs_by_the_distance_from_the_optimum():
    # A positive far below its optimum 1 + m, or a negative far above its optimum -m, is pulled hardest: gradients in
    # the similarities are gamma * alpha times a share, with alpha_p = 1 + m - s_p and alpha_n = s_n + m.
    m, gamma = 0.25, 1.0
    anchor = torch.tensor([[1.0, 0.0]])
    far, near = torch.tensor([[0.1, 0.995]]), torch.tensor([[0.9, 0.436]])

    def slope(positive, negative):
        x = torch.cat([anchor, positive, negative]).double().requires_grad_()
        own = torch.tensor([[True, False, False]])
        value = CircleLoss(m, gamma).memory_loss(x[:1], torch.tensor([0]), x.detach(), torch.tensor([0, 0, 1]), own)
        return torch.autograd.grad(value, x)[0][0].norm().item()

    opposite = -anchor
    assert slope(far, opposite) > 2 * slope(near, opposite)  # alpha_n of the opposite is 0
    aligned = anchor
    assert slope(aligned, near) > slope(aligned, far) * 0.5
    # All aligned with the class and away from the other one costs next to nothing, and all wrong costs a lot.
    right = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    assert CircleLoss()(right, torch.tensor([0, 0, 1, 1])).item() < 1e-6
    assert CircleLoss()(right, torch.tensor([0, 1, 0, 1])).item() > 100


def test_active_counts():
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, 0.0]])
    groups = torch.tensor([0, 0, 1, 2])
    counts = {}
    for loss in (CircleLoss(), MultiSimilarityLoss(), NTXentLoss(), FastAPLoss(), OnlineContrastiveLoss(0.5)):
        loss(embeddings, groups)
        counts[type(loss).__name__] = float(loss.figures()["n_active"])
    # Pulled: items 0 and 1; pushed: 0 and 1 by 3, 3 by 0; item 2 is at a distance of 0.9 or more.
    expected = {"CircleLoss": 2, "MultiSimilarityLoss": 2, "NTXentLoss": 2, "FastAPLoss": 2, "OnlineContrastiveLoss": 5}
    assert counts == expected


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        (CircleLoss, {"margin": -1}, "CircleLoss: margin must be a finite number zero or above, got -1"),
        (CircleLoss, {"scale_factor": 0}, "CircleLoss: scale_factor must be a finite number above zero, got 0"),
        (MultiSimilarityLoss, {"epsilon": -1}, "MultiSimilarityLoss: epsilon must be a finite number zero or above"),
        (MultiSimilarityLoss, {"beta": "x"}, "MultiSimilarityLoss: beta must be a finite number above zero, got 'x'"),
        (NTXentLoss, {"temperature": 0}, "NTXentLoss: temperature must be a finite number above zero, got 0"),
        (FastAPLoss, {"num_bins": 0}, "FastAPLoss: num_bins must be a whole number, 1 or more, got 0"),
        (FastAPLoss, {"num_bins": 2.5}, "FastAPLoss: num_bins must be a whole number, 1 or more, got 2.5"),
        (OnlineContrastiveLoss, {"distance": "dot"}, "OnlineContrastiveLoss squares distances, and 'dot'"),
        (OnlineContrastiveLoss, {"mining": "semi_hard"}, "OnlineContrastiveLoss: unknown mining 'semi_hard'"),
    ],
)
def test_wrong_settings_are_refused(kind, words, message):
    with pytest.raises(ConfigError, match=message):
        kind(**words)


class LargestTensor(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


@pytest.mark.parametrize("case", CASES)
def test_peers_22_memory_is_quadratic_in_the_batch(case):
    kind, _, numbers = CASES[case]
    embeddings, groups = draw(0, 64, 4).requires_grad_(), torch.arange(64) % 4
    with LargestTensor() as largest:
        kind(*numbers)(embeddings, groups).backward()
    assert 64 * 64 <= largest.numel <= 2 * 64 * 64
