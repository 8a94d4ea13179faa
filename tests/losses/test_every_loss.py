"""What holds for each loss of the room, over all registered ones."""

import inspect
import json
import subprocess
import sys

import pytest
import torch

import simtrain.losses
from simtrain import registry
from simtrain.losses import GroupLoss, PairwiseLoss

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
VARIANTS = [loss() for loss in LOSSES] + [
    simtrain.losses.TripletLoss(0.3, "euclidean", "semi_hard"),
    simtrain.losses.TripletLoss(0.3, "euclidean", "all"),
    simtrain.losses.TripletLoss(0.3, "manhattan", "all", soft=True),
    simtrain.losses.MultipleNegativesRankingLoss(symmetric=True),
    simtrain.losses.ContrastiveLoss(2.0, "euclidean", size_average=False),
]


def call(loss, embeddings):
    n = len(embeddings) // 2
    if isinstance(loss, GroupLoss):
        return loss(embeddings, torch.arange(2 * n) % 3)
    assert isinstance(loss, PairwiseLoss)
    labels = (torch.arange(n) % 3 > 0).to(embeddings.dtype)
    return loss(embeddings, torch.arange(2 * n).view(2, n).T, labels, torch.arange(2 * n) % n % 4)


def test_the_losses_are_found():
    assert [loss.__name__ for loss in LOSSES] == [
        "ContrastiveLoss",
        "MultipleNegativesRankingLoss",
        "SupConLoss",
        "TripletLoss",
    ]


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
    embeddings[0, 0] = float("nan")
    assert call(loss, embeddings).isnan()


@pytest.mark.parametrize("loss", VARIANTS, ids=repr)
def test_inputs_are_left_as_they_are(loss):
    embeddings = torch.randn(12, 4)
    before = embeddings.clone()
    call(loss, embeddings)
    assert torch.equal(embeddings, before)


@pytest.mark.parametrize("loss", [loss for loss in VARIANTS if isinstance(loss, GroupLoss)], ids=repr)
def test_the_order_of_the_items_does_not_matter(loss):
    embeddings, groups, order = torch.randn(12, 4).double(), torch.arange(12) % 3, torch.randperm(12)
    torch.testing.assert_close(loss(embeddings[order], groups[order]), loss(embeddings, groups))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("loss", VARIANTS, ids=repr)
def test_a_gpu_gives_the_same_and_never_waits(loss):
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(24, 16, generator=generator, dtype=torch.float64)
    rows = torch.arange(24)
    on_cpu = [embeddings.requires_grad_(), rows % 3, rows.view(2, 12).T, (rows[:12] % 3 > 0).double(), rows % 12 % 4]
    on_gpu = [x.detach().cuda().requires_grad_(x.requires_grad) for x in on_cpu]
    values = []
    waits = "default" if "soft=True" in repr(loss) and "all" in repr(loss) else "error"
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


def test_importing_the_room_is_light():
    heavy = "lightning", "sentence_transformers", "transformers", "pytorch_metric_learning", "matplotlib"
    code = f"import sys, simtrain.losses, simtrain.xbm; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
