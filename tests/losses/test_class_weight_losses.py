"""Class-weight losses: the papers' formulas, other libraries, edges, number formats, checks."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning import losses as pml

from simtrain import registry
from simtrain.errors import ConfigError, DataError
from simtrain.losses import (
    ArcFaceLoss,
    CenterLoss,
    ClassWeightLoss,
    CosFaceLoss,
    ProxyAnchorLoss,
    ProxyNCALoss,
    SoftmaxLoss,
)
from simtrain.losses.class_logits import cross_entropy_terms
from simtrain.losses.margin_softmax import add_angle, dynamic_margins
from tests.losses.class_weight_cases import CASES, N_GROUPS, SIZE, build

KINDS = [ArcFaceLoss, CenterLoss, CosFaceLoss, ProxyAnchorLoss, ProxyNCALoss, SoftmaxLoss]
COSINE = [name for name in CASES if not name.startswith("center") and "dot" not in name]


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradients(value, *inputs):
    return torch.autograd.grad(value, inputs, retain_graph=True)


def test_every_class_weight_loss_is_here():
    assert {kind for kind, *_ in CASES.values()} == set(KINDS)
    found = {registry.losses.get(name) for name in registry.losses.names() if not name.startswith("pml.")}
    assert {kind for kind in found if isinstance(kind, type) and issubclass(kind, ClassWeightLoss)} == set(KINDS)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 7), one_class=st.booleans())
def test_value_and_gradients_equal_the_papers_formula(name, seed, n, one_class):
    loss, reference = build(name, seed=seed)
    x = draw(seed + 1, n, SIZE).requires_grad_()
    groups = torch.randint(1 if one_class else N_GROUPS, (n,), generator=torch.Generator().manual_seed(seed))
    value, expected = loss(x, groups), reference(x, groups, loss.weights)
    torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-8)
    for got, wanted in zip(gradients(value, x, loss.weights), gradients(expected, x, loss.weights), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_gradcheck(name):
    loss, _ = build(name)
    groups = torch.tensor([0, 3, 3])
    assert torch.autograd.gradcheck(
        lambda x, w: _with_weights(loss, w)(x, groups), (draw(1, 3, SIZE).requires_grad_(), loss.weights)
    )


def _with_weights(loss, weights):
    return lambda x, groups: torch.func.functional_call(loss, {"weights": weights}, (x, groups))


def pml_twins():
    degrees = math.degrees(0.5)
    return {
        "arcface": (ArcFaceLoss(SIZE, N_GROUPS), pml.ArcFaceLoss(N_GROUPS, SIZE, margin=degrees)),
        "sub-centers": (
            ArcFaceLoss(SIZE, N_GROUPS, sub_centers=3),
            pml.SubCenterArcFaceLoss(num_classes=N_GROUPS, embedding_size=SIZE, margin=degrees),
        ),
        "cosface": (CosFaceLoss(SIZE, N_GROUPS), pml.CosFaceLoss(N_GROUPS, SIZE)),
        "proxy anchor": (ProxyAnchorLoss(SIZE, N_GROUPS), pml.ProxyAnchorLoss(N_GROUPS, SIZE)),
        "proxy nca++": (
            ProxyNCALoss(SIZE, N_GROUPS, temperature=0.25, own_in_sum=True),
            pml.ProxyNCALoss(N_GROUPS, SIZE, softmax_scale=4),
        ),
    }


@pytest.mark.parametrize("name", pml_twins())
def test_equals_pytorch_metric_learning(name):
    loss, twin = pml_twins()[name]
    weights = draw(0, *loss.weights.shape)
    loss.weights.data = weights.clone()
    parameter = next(twin.parameters())
    flat = weights.flatten(0, -2)
    parameter.data = (flat if parameter.shape == flat.shape else flat.T).clone()
    x, groups = draw(1, 12, SIZE).requires_grad_(), torch.arange(12) % N_GROUPS
    value, expected = loss(x, groups), twin(x, groups)
    torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(*gradients(value, x), *gradients(expected, x), rtol=1e-7, atol=1e-8)


def test_peers_9_cosface_is_right():
    loss = CosFaceLoss(2, 2)
    loss.weights.data = torch.eye(2)
    x = torch.tensor([[1.0, 0.0]])
    assert loss(x, torch.tensor([0])).item() == pytest.approx(math.log1p(math.exp(-64 * 0.65)), abs=1e-12)
    assert loss(x, torch.tensor([1])).item() == pytest.approx(86.4, rel=1e-6)


# ------------------------------------------------------------------------------------------ edges of the angle


@pytest.mark.parametrize("margin", [0.1, 0.5, 1.2])
def test_the_margin_only_lowers_and_falls_with_the_angle(margin):
    cosines = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    added = add_angle(cosines, torch.tensor(margin, dtype=torch.float64))
    assert (added[1:] > added[:-1]).sum() >= len(cosines) - 2  # but for the step at pi - margin
    assert (added <= cosines + 1e-12).all()


def test_beyond_pi_minus_margin_the_line_goes_on():
    margin = 0.5
    angles = torch.tensor([math.pi - margin - 0.01, math.pi - margin + 0.01], dtype=torch.float64)
    inside, beyond = add_angle(angles.cos(), torch.tensor(margin, dtype=torch.float64)).tolist()
    assert inside == pytest.approx(math.cos(math.pi - 0.01))
    assert beyond == pytest.approx(math.cos(float(angles[1])) - margin * math.sin(margin))


@pytest.mark.parametrize("cosine", [1.0, -1.0, 1.0 + 1e-7, -1.0 - 1e-7, 1.0 - 1e-7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_angle_has_a_finite_gradient_at_its_edges(cosine, dtype):
    cosines = torch.tensor([cosine], dtype=dtype, requires_grad=True)
    value = add_angle(cosines, torch.tensor(0.5, dtype=dtype))
    assert value.isfinite().all()
    assert gradients(value.sum(), cosines)[0].isfinite().all()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("sign", [1, -1, 0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_embedding_on_its_class_weight_has_a_finite_gradient(name, sign, dtype):
    loss, _ = build(name)
    loss = loss.to(dtype)
    at = loss.weights.detach().view(N_GROUPS, -1, SIZE)[:, 0]
    x = (sign * at).clone().requires_grad_()
    value = loss(x, torch.arange(N_GROUPS))
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients(value, x, loss.weights))


def test_on_its_centre_an_item_costs_nothing():
    loss, _ = build("center")
    x = loss.weights.detach().clone().requires_grad_()
    value = loss(x, torch.arange(N_GROUPS))
    assert value.item() == 0
    assert all((gradient == 0).all() for gradient in gradients(value, x, loss.weights))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    "x",
    [torch.zeros(4, SIZE), torch.ones(4, SIZE), torch.full((4, SIZE), 1e-20), torch.full((4, SIZE), 1e15)],
    ids=["zeros", "collapsed", "tiny", "large"],
)
def test_degenerate_batches_have_finite_gradients(name, x):
    loss, _ = build(name)
    x = x.double().requires_grad_()
    value = loss(x, torch.tensor([0, 0, 1, 2]))
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients(value, x, loss.weights))


@pytest.mark.parametrize("name", CASES)
def test_degenerate_batches_in_half_precision_have_finite_gradients(name):
    loss, _ = build(name)
    loss = loss.float()
    at_centers = loss.weights.detach().view(N_GROUPS, -1, SIZE)[:, 0]
    batches = {
        "one item": ([4], draw(0, 1, SIZE)),
        "one class": ([1] * 5, draw(1, 5, SIZE)),
        "all classes different": (list(range(N_GROUPS)), draw(2, N_GROUPS, SIZE)),
        "duplicates": ([0, 1, 0, 1], draw(3, 2, SIZE).repeat(2, 1)),
        "collapsed": ([0, 0, 1, 2], torch.ones(4, SIZE)),
        "zeros": ([0, 0, 1, 2], torch.zeros(4, SIZE)),
        "on their centres": (list(range(N_GROUPS)), at_centers),
    }
    for kind, (groups, embeddings) in batches.items():
        for dtype in (torch.float16, torch.bfloat16):
            x = embeddings.clone().to(dtype).requires_grad_()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
                value = loss(x, torch.tensor(groups))
            assert value.isfinite(), kind
            assert all(gradient.isfinite().all() for gradient in gradients(value, x, loss.weights)), kind


@pytest.mark.parametrize("name", CASES)
def test_zero_class_weights_have_finite_gradients(name):
    loss, _ = build(name)
    loss.weights.data.zero_()
    x = draw(1, 4, SIZE).requires_grad_()
    value = loss(x, torch.tensor([0, 0, 1, 2]))
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients(value, x, loss.weights))


@pytest.mark.parametrize("name", CASES)
def test_an_empty_batch_is_zero_with_zero_gradients(name):
    loss, _ = build(name)
    x = torch.zeros(0, SIZE, dtype=torch.float64, requires_grad=True)
    value = loss(x, torch.zeros(0, dtype=torch.long))
    assert value.item() == 0
    assert (gradients(value, x, loss.weights)[1] == 0).all()
    assert loss.figures()["n_active"] == 0


# --------------------------------------------------------------------------------------------- number formats


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_class_weights_in_half_precision_are_near_float32(name, dtype):
    loss, _ = build(name, size=32)
    loss = loss.float()
    x, groups = draw(1, 10, 32).to(dtype).requires_grad_(), torch.arange(10) % N_GROUPS
    value = loss(x, groups)
    assert value.dtype == torch.float32
    full = x.detach().float().requires_grad_()
    torch.testing.assert_close(value, loss(full, groups), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        gradients(value, x)[0].float(), gradients(loss(full, groups), full)[0], rtol=2e-2, atol=2e-3
    )
    assert loss.to(dtype)(x, groups).isfinite()


@pytest.mark.parametrize("name", CASES)
def test_autocast_is_float32(name):
    loss, _ = build(name, size=32)
    loss, layer = loss.float(), torch.nn.Linear(32, 32)
    groups = torch.arange(10) % N_GROUPS
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = layer(draw(1, 10, 32).float())
        value = loss(outputs, groups)
    torch.testing.assert_close(value, loss(outputs.float(), groups))
    value.backward()
    assert layer.weight.grad.isfinite().all()
    assert loss.weights.grad.isfinite().all()


@pytest.mark.parametrize("name", CASES)
def test_labels_of_any_integer_kind(name):
    loss, _ = build(name)
    x, groups = draw(1, 6, SIZE), torch.arange(6) % N_GROUPS
    for dtype in (torch.int32, torch.int16, torch.uint8):
        assert loss(x, groups.to(dtype)) == loss(x, groups)


def test_a_nan_is_not_hidden():
    for name in CASES:
        loss, _ = build(name)
        x = draw(1, 6, SIZE)
        x[0, 0] = float("nan")
        assert loss(x, torch.arange(6) % N_GROUPS).isnan(), name


# ----------------------------------------------------------------------------------------------------- checks


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("wrong", [-1, N_GROUPS, -100])
def test_a_group_without_a_class_weight_is_refused(name, wrong):
    loss, _ = build(name)
    with pytest.raises(DataError, match=rf"class weights for the groups 0 to 4, got the group {wrong}; set num_groups"):
        loss(draw(1, 3, SIZE), torch.tensor([0, wrong, 1]))


@pytest.mark.parametrize("name", CASES)
def test_in_eval_mode_unknown_groups_are_left_out(name):
    loss, _ = build(name)
    x = draw(1, 4, SIZE)
    expected = loss(x[1:3], torch.tensor([2, 0]))
    loss.eval()
    assert loss(x, torch.tensor([N_GROUPS, 2, 0, -1])) == expected
    assert loss.figures()["n_active"] == 2
    assert loss(x, torch.full((4,), 77)).isnan()


@pytest.mark.parametrize("kind", KINDS)
def test_another_embedding_size_is_refused(kind):
    with pytest.raises(DataError, match=f"{kind.__name__} was built for embeddings of 4 dimensions, got 3"):
        kind(SIZE, N_GROUPS)(draw(1, 2, 3), torch.tensor([0, 1]))


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("word", ["embedding_size", "num_groups"])
@pytest.mark.parametrize("wrong", [0, -1, 2.0, True, None])
def test_wrong_sizes_are_refused(kind, word, wrong):
    with pytest.raises(ConfigError, match=f"{kind.__name__}: {word} must be a whole number, 1 or more, got {wrong}"):
        kind(**{"embedding_size": 2, "num_groups": 3, word: wrong})


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        (
            ArcFaceLoss,
            {"margin": 28.6},
            "margin is an angle in radians, .*, got 28.6; 28.6 degrees are 0.4992",
        ),
        (ArcFaceLoss, {"margin": -0.1}, "margin must be a finite number zero or above"),
        (ArcFaceLoss, {"scale": 0}, "scale must be a finite number above zero"),
        (ArcFaceLoss, {"sub_centers": 0}, "sub_centers must be a whole number, 1 or more"),
        (
            ArcFaceLoss,
            {"group_counts": [1, 2]},
            "group_counts should have .* each of num_groups=3 groups, got 2",
        ),
        (ArcFaceLoss, {"group_counts": [1, 2, 0]}, "group_counts should give each group's number of items"),
        (
            ArcFaceLoss,
            {"group_counts": [1, 2, 3], "margin": 0.01},
            "min_margin should be at most margin=0.01",
        ),
        (CosFaceLoss, {"margin": -1}, "margin must be a finite number zero or above"),
        (SoftmaxLoss, {"temperature": 0}, "temperature must be a finite number above zero"),
        (SoftmaxLoss, {"label_smoothing": 1}, "label_smoothing must be below 1"),
        (ProxyAnchorLoss, {"scale": 0}, "scale must be a finite number above zero"),
        (ProxyNCALoss, {"temperature": -1}, "temperature must be a finite number above zero"),
        (ProxyNCALoss, {"num_groups": 1}, "num_groups must be 2 or more, got 1"),
        (CenterLoss, {"lambda_c": 0}, "lambda_c must be a finite number above zero"),
    ],
)
def test_wrong_settings_are_refused(kind, words, message):
    with pytest.raises(ConfigError, match=message):
        kind(**{"embedding_size": 2, "num_groups": 3, **words})


@pytest.mark.parametrize("name", CASES)
def test_config_and_state_rebuild_the_loss(name):
    loss, _ = build(name)
    config = json.loads(json.dumps(loss.get_config_dict()))
    twin = registry.losses.build({"type": type(loss).__name__, **config})
    assert list(loss.state_dict()) == ["weights"]
    twin.double().load_state_dict(loss.state_dict())
    x, groups = draw(1, 6, SIZE), torch.arange(6) % N_GROUPS
    assert twin(x, groups) == loss(x, groups)
    assert repr(twin) == repr(loss)


# ------------------------------------------------------------------------------------------ smaller functions


def test_dynamic_margins_fall_with_the_number_of_items():
    margins = np.array(dynamic_margins([1, 3, 10, 40, 1000]))
    assert margins[0] == pytest.approx(0.5)
    assert margins[-1] == pytest.approx(0.05)
    raw = np.array([1, 3, 10, 40, 1000]) ** -0.25
    np.testing.assert_allclose(margins, np.polyval(np.polyfit(raw, margins, 1), raw))  # a n^-1/4 + b
    assert dynamic_margins([7, 7]) == [0.5, 0.5]


def test_cross_entropy_equals_torchs():
    logits, groups = draw(0, 6, 5), torch.arange(6) % 5
    for smoothing in (0.0, 0.3):
        torch.testing.assert_close(
            cross_entropy_terms(logits, groups, smoothing),
            torch.nn.functional.cross_entropy(logits, groups, reduction="none", label_smoothing=smoothing),
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", CASES)
def test_a_gpu_gives_the_same_and_never_waits(name):
    loss, _ = build(name)
    x, groups = draw(1, 6, SIZE), torch.arange(6) % N_GROUPS
    expected = loss(x, groups)
    loss, x, groups = loss.cuda(), x.cuda(), groups.cuda()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        value = loss(x, groups)
        value.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(value.cpu(), expected, rtol=1e-8, atol=1e-8)
