"""What holds for each loss of the room, over all registered ones."""

import inspect
import json
import subprocess
import sys

import pytest
import torch

import simtrain.losses
from simtrain import registry
from simtrain.errors import ConfigError
from simtrain.losses import GroupLoss, PairwiseLoss, SimilarityLoss
from simtrain.losses.row_loss import RowLoss

LOSSES = sorted(
    (
        value
        for name in simtrain.losses.__all__
        if inspect.isclass(value := getattr(simtrain.losses, name))
        and issubclass(value, simtrain.losses.SimilarityLoss)
        and registry.losses._classes.get(name) is value
    ),
    key=lambda loss: loss.__name__,
)
# Constructor arguments of those that need some. Losses with class weights and adapters have tests of their own.
ARGUMENTS = {
    "CombinedLoss": {
        "losses": {"near": {"type": "TripletLoss"}, "many": {"type": "SupConLoss"}},
        "weights": {"near": 1.0, "many": 0.5},
        "memory": ["near"],
    },
    "MatryoshkaLoss": {"loss": {"type": "NTXentLoss", "temperature": 0.2}, "sizes": [4, 2], "weights": [1.0, 0.5]},
}
NOT_HERE = {"SimilarityDistillationLoss"}  # takes other targets


def can_be_built(loss):
    needed = [p for p in inspect.signature(loss).parameters.values() if p.default is p.empty]
    return loss.__name__ in ARGUMENTS or (not needed and loss.__name__ not in NOT_HERE)


VARIANTS = [loss(**ARGUMENTS.get(loss.__name__, {})) for loss in LOSSES if can_be_built(loss)] + [
    simtrain.losses.TripletLoss(0.3, "euclidean", "semi_hard"),
    simtrain.losses.TripletLoss(0.3, "euclidean", "all"),
    simtrain.losses.TripletLoss(0.3, "manhattan", "all", soft=True),
    simtrain.losses.MultipleNegativesRankingLoss(symmetric=True),
    simtrain.losses.ContrastiveLoss(2.0, "euclidean", size_average=False),
    simtrain.losses.OnlineContrastiveLoss(1.5, "euclidean", "all"),
    simtrain.losses.MultiSimilarityLoss(lambda_=0.5, epsilon=None),
    simtrain.losses.MultipleNegativesRankingLoss(temperature={"initial": 0.1}),
    simtrain.losses.SupConLoss({"start": 0.5, "end": 0.1, "steps": 10}),
    simtrain.losses.MatryoshkaLoss(simtrain.losses.CoSENTLoss(), [3]),
]
OF_GROUPS = [loss for loss in VARIANTS if loss.target_names == ("groups",)]


def call(loss, embeddings):
    n = len(embeddings) // 2
    targets = {
        "groups": torch.arange(2 * n) % 3,
        "pairs": torch.arange(2 * n).view(2, n).T,
        "labels": (torch.arange(n) % 3 > 0).to(embeddings.dtype),
        "subgroups": torch.arange(2 * n) % n % 4,
    }
    return loss(embeddings, *(targets[name] for name in loss.target_names))


def test_every_registered_loss_is_here_or_tested_elsewhere():
    elsewhere = {
        "PytorchMetricLearningPairs",  # test_pml.py, with every name that begins with "pml."
        "PytorchMetricLearningWrapper",
        "SimilarityDistillationLoss",  # test_similarity_distillation.py
    }
    # Losses with class weights: test_class_weight_losses.py.
    others = {loss.__name__ for loss in LOSSES if not issubclass(loss, simtrain.losses.ClassWeightLoss)}
    assert others - elsewhere == {type(loss).__name__ for loss in VARIANTS}


def test_the_losses_are_found():
    assert {loss.__name__ for loss in LOSSES} >= {
        "CircleLoss",
        "CoSENTLoss",
        "CombinedLoss",
        "ContrastiveLoss",
        "CosineSimilarityLoss",
        "DistillKLDivLoss",
        "FastAPLoss",
        "MarginMSELoss",
        "MatryoshkaLoss",
        "MultiSimilarityLoss",
        "MultipleNegativesRankingLoss",
        "NTXentLoss",
        "OnlineContrastiveLoss",
        "SimilarityDistillationLoss",
        "SupConLoss",
        "TripletLoss",
    }
    assert len(VARIANTS) >= 25
    assert all(loss.target_names for loss in LOSSES if issubclass(loss, (GroupLoss, PairwiseLoss)))
    assert all(isinstance(loss, SimilarityLoss) for loss in VARIANTS)


def test_all_names_are_sorted_and_there():
    assert simtrain.losses.__all__ == sorted(simtrain.losses.__all__)
    assert all(hasattr(simtrain.losses, name) for name in simtrain.losses.__all__)


@pytest.mark.parametrize("loss", VARIANTS, ids=repr)
def test_the_config_rebuilds_the_loss(loss):
    config = json.loads(json.dumps(loss.get_config_dict()))
    rebuilt = registry.losses.build({"type": type(loss).__name__, **config})
    embeddings = torch.randn(12, 4)
    assert rebuilt.get_config_dict() == config
    assert set(config) == set(inspect.signature(type(loss)).parameters)
    assert call(rebuilt, embeddings) == call(loss, embeddings)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", VARIANTS, ids=repr)
def test_half_precision_is_near_float32(loss, dtype):
    embeddings = torch.randn(12, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    half, full = embeddings.clone().requires_grad_(), embeddings.float().requires_grad_()
    value = call(loss, half)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, call(loss, full), rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad(value, half)
    torch.testing.assert_close(gradient.float(), torch.autograd.grad(call(loss, full), full)[0], rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("loss", VARIANTS, ids=repr)
def test_autocast_is_finite_and_near_float32(loss):
    torch.manual_seed(0)
    embeddings = torch.randn(12, 32)
    layer = torch.nn.Linear(32, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = layer(embeddings)
        value = call(loss, outputs)
    torch.testing.assert_close(value, call(loss, outputs.float()), rtol=1e-4, atol=1e-4)
    value.backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.isfinite().all()


@pytest.mark.parametrize("loss", VARIANTS, ids=repr)
def test_a_nan_is_not_hidden(loss):
    # Whoever drives the training looks at the loss only.
    embeddings = torch.randn(12, 4)
    embeddings[1, 0] = float("nan")
    assert call(loss, embeddings).isnan()


@pytest.mark.parametrize("loss", VARIANTS, ids=repr)
def test_inputs_are_left_as_they_are(loss):
    embeddings = torch.randn(12, 4)
    before = embeddings.clone()
    call(loss, embeddings)
    assert torch.equal(embeddings, before)


@pytest.mark.parametrize("loss", OF_GROUPS, ids=repr)
def test_the_order_of_the_items_does_not_matter(loss):
    embeddings, groups, order = torch.randn(12, 4).double(), torch.arange(12) % 3, torch.randperm(12)
    torch.testing.assert_close(loss(embeddings[order], groups[order]), loss(embeddings, groups))


@pytest.mark.parametrize("loss", VARIANTS, ids=repr)
def test_a_loss_notes_what_it_learnt_from(loss):
    call(loss, torch.randn(12, 4))
    figures = loss.figures()
    assert any("n_active" in name for name in figures)
    for value in figures.values():
        assert isinstance(value, float) or (value.numel() == 1 and not value.requires_grad)
    call(loss, torch.randn(0, 4))
    assert all(float(value) == 0 for name, value in loss.figures().items() if "n_active" in name)


DEGENERATE = {
    "no item": ([], torch.zeros(0, 4)),
    "one item": ([5], torch.ones(1, 4)),
    "one class": ([1] * 6, torch.randn(6, 4)),
    "all classes different": (list(range(6)), torch.randn(6, 4)),
    "collapsed": ([0, 0, 1, 1, 2, 2], torch.ones(6, 4)),
    "duplicates": ([0, 0, 1, 1, 0, 1], torch.randn(3, 4).repeat(2, 1)),
    "zeros": ([0, 0, 1, 1, 2, 2], torch.zeros(6, 4)),
    "one zero": ([0, 0, 1, 1, 2, 2], torch.cat([torch.zeros(1, 4), torch.randn(5, 4)])),
    "opposite": ([0, 1, 0, 1], torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]]).repeat(2, 1)),
    "large": ([0, 0, 1, 1, 2, 2], 1e4 * torch.randn(6, 4)),
}


@pytest.mark.parametrize("kind", DEGENERATE)
@pytest.mark.parametrize("loss", OF_GROUPS, ids=repr)
def test_degenerate_batches_of_groups_have_finite_gradients(loss, kind):
    groups, embeddings = DEGENERATE[kind]
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        given = embeddings.clone().to(dtype).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            value = loss(given, torch.tensor(groups, dtype=torch.long))
        (gradient,) = torch.autograd.grad(value, given)
        assert value.isfinite()
        assert gradient.isfinite().all()
        if kind in ("no item", "one item", "all classes different") and _needs_a_positive(loss):
            assert value.item() == 0
            assert (gradient == 0).all()
            assert all(float(n) == 0 for name, n in loss.figures().items() if "n_active" in name)


def _needs_a_positive(loss):
    # The contrastive losses push strangers apart, too.
    return "Contrastive" not in type(loss).__name__ and getattr(loss, "epsilon", 0) is not None


@pytest.mark.parametrize(
    "scores", [[], [1.0], [1.0, 1.0, 1.0], [0.0, 0.5, 1.0]], ids=["none", "one", "equal", "graded"]
)
@pytest.mark.parametrize("fill", [None, 0.0, 1.0], ids=["random", "zeros", "collapsed"])
@pytest.mark.parametrize("loss", [loss for loss in VARIANTS if "pairs" in loss.target_names], ids=repr)
def test_degenerate_batches_of_pairs_have_finite_gradients(loss, fill, scores):
    n = len(scores)
    embeddings = torch.randn(2 * n, 4) if fill is None else torch.full((2 * n, 4), fill)
    embeddings.requires_grad_()
    pairs, no_subgroups = torch.arange(2 * n).view(2, n).T, torch.zeros(2 * n, dtype=torch.long)
    value = loss(embeddings, pairs, torch.tensor(scores), no_subgroups)
    (gradient,) = torch.autograd.grad(value, embeddings)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("loss", VARIANTS, ids=repr)
def test_a_gpu_gives_the_same_and_only_losses_that_list_their_positives_wait(loss):
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(24, 16, generator=generator, dtype=torch.float64)
    rows = torch.arange(24)
    on_cpu = [embeddings.requires_grad_(), rows % 3, rows.view(2, 12).T, (rows[:12] % 3 > 0).double(), rows % 12 % 4]
    on_gpu = [x.detach().cuda().requires_grad_(x.requires_grad) for x in on_cpu]
    values = []
    waits = "default" if isinstance(loss, RowLoss) else "error"  # a list is as long as there are positives
    torch.cuda.synchronize()
    for x, groups, *others in (on_cpu, on_gpu):
        torch.cuda.set_sync_debug_mode(waits)
        try:
            value = loss(x, groups) if isinstance(loss, GroupLoss) else loss(x, *others)
            (gradient,) = torch.autograd.grad(value, x)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        values.append((value.cpu(), gradient.cpu()))
    for cpu, gpu in zip(*values, strict=True):
        torch.testing.assert_close(gpu, cpu, rtol=1e-8, atol=1e-8)


# The circle loss's weights count as constants, so that its gradient is no derivative of its value.
GROUP_LOSSES = [loss for loss in VARIANTS if isinstance(loss, GroupLoss) and "Circle" not in repr(loss)]


@pytest.mark.parametrize("loss", GROUP_LOSSES, ids=repr)
def test_a_gradient_of_the_gradient_is_right_or_an_error(loss):
    """A wrong one would go unnoticed in a sum with a penalty on gradients."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    groups = torch.tensor([0, 0, 1, 1, 2, 2])

    def first(x):
        return torch.autograd.grad(loss(x, groups), x, create_graph=True)[0]

    if refuses(first, x):
        return
    assert first(x).requires_grad
    torch.autograd.gradcheck(first, x)


def refuses(first, x):
    try:
        first(x)
    except ConfigError as error:
        return "has no gradient of the gradient" in str(error)
    return False


def test_losses_against_a_memory_refuse_a_gradient_of_the_gradient():
    x = torch.randn(4, 3, requires_grad=True)
    value = simtrain.losses.SupConLoss().memory_loss(x, torch.arange(4) % 2, torch.randn(5, 3), torch.arange(5) % 2)
    with pytest.raises(ConfigError, match="leave out create_graph=True"):
        torch.autograd.grad(value, x, create_graph=True)


def test_importing_the_room_is_light():
    heavy = "lightning", "sentence_transformers", "transformers", "pytorch_metric_learning", "matplotlib"
    code = f"import sys, simtrain.losses, simtrain.xbm; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
