import copy
import io
import math

import pytest
import torch
from torch import nn

from simtrain.errors import ConfigError, DataError
from simtrain.training.amp_optim_wrapper import AmpOptimWrapper
from simtrain.training.optim_wrapper import OptimWrapper

CUDA = pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")])
DEVICES = pytest.mark.parametrize("device", ["cpu", CUDA])
DTYPES = pytest.mark.parametrize("dtype", ["float16", "bfloat16"])


def model_of(device="cpu"):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).to(device)


def sgd(model, lr=0.05):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def batches_of(count, device="cpu"):
    return list(torch.randn(count, 4, 3, generator=torch.Generator().manual_seed(1)).to(device))


def loss_of(model, batch):
    return (model(batch).squeeze(1).float() - batch.sum(dim=1)).square().mean()


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def train(wrapper, model, batches, factor=1.0):
    for batch in batches:
        with wrapper.optim_context(model):
            loss = loss_of(model, batch) * factor
        wrapper.update_params(loss)


@DEVICES
@DTYPES
@pytest.mark.parametrize("clip", [None, {"max_norm": 0.05}, {"type": "value", "clip_value": 0.01}])
def test_it_is_torch_s_own_recipe(device, dtype, clip):
    batches = batches_of(6, device)
    expected, model = model_of(device), model_of(device)
    optimizer = sgd(expected)
    scaler = torch.amp.GradScaler(device, 1024.0, enabled=dtype == "float16")
    for batch in batches:
        with torch.autocast(device, dtype=getattr(torch, dtype)):
            loss = loss_of(expected, batch)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        if clip is not None and "max_norm" in clip:
            nn.utils.clip_grad_norm_(expected.parameters(), clip["max_norm"])
        elif clip is not None:
            nn.utils.clip_grad_value_(expected.parameters(), clip["clip_value"])
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    wrapper = AmpOptimWrapper(sgd(model), dtype, {"init_scale": 1024.0}, clip_grad=clip)
    train(wrapper, model, batches)
    assert torch.equal(weights(model), weights(expected))
    assert wrapper.n_updates == 6
    assert model[0].weight.dtype is torch.float32


@DEVICES
@DTYPES
def test_accumulated_windows_are_near_the_steps_of_full_precision(device, dtype):
    batches = batches_of(8, device)
    expected, model = model_of(device), model_of(device)
    for kind, trained in ((OptimWrapper, expected), (AmpOptimWrapper, model)):
        words = {"dtype": dtype, "loss_scale": 1024} if kind is AmpOptimWrapper else {}
        wrapper = kind(sgd(trained), accumulative_counts=3, clip_grad={"max_norm": 0.5}, **words)
        wrapper.initialize_count_status(trained, 0, 8)
        train(wrapper, trained, batches)
        assert wrapper.n_updates == 3
    tolerance = {"float16": 5e-4, "bfloat16": 1e-2}[dtype]
    torch.testing.assert_close(weights(model), weights(expected), rtol=0, atol=tolerance)
    moved = (weights(expected) - weights(model_of(device))).abs().max()
    assert moved > 3 * tolerance


@DTYPES
def test_the_forward_pass_runs_in_16_bits_inside_the_context_only(dtype):
    model = model_of()
    wrapper = AmpOptimWrapper(sgd(model), dtype)
    with wrapper.optim_context(model):
        assert model(torch.ones(2, 3)).dtype is getattr(torch, dtype)
    assert model(torch.ones(2, 3)).dtype is torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, None])
def test_dtypes_are_given_as_torch_s_or_left_to_it(dtype):
    wrapper = AmpOptimWrapper(sgd(model_of()), dtype)
    assert wrapper.dtype is (dtype or torch.get_autocast_dtype("cpu"))
    assert wrapper.scaler.is_enabled() == (wrapper.dtype is torch.float16)


def test_small_gradients_survive_in_float16_by_the_scale():
    def gradient(scale):
        weight = nn.Parameter(torch.ones(1, 1))
        wrapper = AmpOptimWrapper(torch.optim.SGD([weight], lr=1.0), "float16", loss_scale=scale)
        with wrapper.optim_context(nn.Identity()):
            loss = nn.functional.linear(torch.ones(1, 1), weight).squeeze() * 1e-8
        wrapper.update_params(loss)
        return 1 - weight.item()

    assert gradient(1.0) == 0.0
    assert gradient(2.0**16) == pytest.approx(1e-8, rel=0.05, abs=6e-8)


@DEVICES
def test_an_overflow_leaves_the_step_out_and_halves_the_scale(device):
    model = model_of(device)
    wrapper = AmpOptimWrapper(
        sgd(model), "float16", {"init_scale": 2.0**15, "growth_interval": 2}, 1, {"max_norm": 1.0}
    )
    before = weights(model).clone()
    train(wrapper, model, batches_of(1, device), factor=1e6)  # finite, and infinite once it is scaled in float16
    assert torch.equal(weights(model), before)
    assert wrapper.n_updates == 0
    assert wrapper.scaler.get_scale() == 2.0**14
    assert model[0].weight.grad is None
    train(wrapper, model, batches_of(2, device))
    assert wrapper.n_updates == 2
    assert wrapper.scaler.get_scale() == 2.0**15
    assert not torch.equal(weights(model), before)


def test_a_number_is_a_scale_that_stays():
    model = model_of()
    wrapper = AmpOptimWrapper(sgd(model), "float16", 512)
    train(wrapper, model, batches_of(1), factor=1e6)
    assert wrapper.n_updates == 0
    assert wrapper.scaler.get_scale() == 512
    train(wrapper, model, batches_of(2))
    assert wrapper.n_updates == 2
    assert wrapper.scaler.get_scale() == 512


def test_the_norm_is_without_the_scale():
    model, expected = model_of(), model_of()
    batch = batches_of(1)[0]
    with torch.autocast("cpu", dtype=torch.float16):
        loss_of(expected, batch).backward()
    norm = torch.cat([parameter.grad.flatten() for parameter in expected.parameters()]).norm()
    wrapper = AmpOptimWrapper(sgd(model), "float16", 1024, clip_grad={"max_norm": 100.0})
    train(wrapper, model, [batch])
    torch.testing.assert_close(wrapper.grad_norm, norm, rtol=1e-2, atol=0)


def stored(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@DEVICES
@DTYPES
@pytest.mark.parametrize("stop", [0, 1, 3, 4, 8])
def test_a_resumed_run_equals_an_uninterrupted_one(device, dtype, stop):
    batches = batches_of(8, device)
    scale = {"init_scale": 1024.0, "growth_interval": 2}
    expected, model = model_of(device), model_of(device)
    finals = []
    for trained, end in ((expected, 8), (model, stop)):
        wrapper = AmpOptimWrapper(sgd(trained), dtype, scale, 3, {"max_norm": 0.5})
        wrapper.initialize_count_status(trained, 0, 8)
        train(wrapper, trained, batches[:end])
        finals.append((wrapper.scaler.get_scale(), wrapper.n_updates))
    resumed = copy.deepcopy(model)
    resumed.zero_grad()
    second = AmpOptimWrapper(sgd(resumed), dtype, scale, 3, {"max_norm": 0.5})
    state = stored(wrapper.state_dict())
    assert "loss_scaler" in state
    second.load_state_dict(state)
    second.initialize_count_status(resumed, stop, 8)
    train(second, resumed, batches[stop:])
    assert torch.equal(weights(resumed), weights(expected))
    assert (second.scaler.get_scale(), second.n_updates) == finals[0]


def test_states_of_other_precisions_are_taken():
    model = model_of()
    plain, half, brain = (
        OptimWrapper(sgd(model)),
        AmpOptimWrapper(sgd(model), "float16"),
        AmpOptimWrapper(sgd(model), "bfloat16"),
    )
    train(half, model, batches_of(1))
    for source in (plain, half, brain):
        for target in (plain, half, brain):
            target.load_state_dict(stored(source.state_dict()))
    fixed = AmpOptimWrapper(sgd(model), "float16", 8.0)
    fixed.load_state_dict(stored(half.state_dict()))
    assert fixed.scaler.get_scale() == 8.0


def test_a_loss_that_reaches_no_parameter_is_a_step_as_without_scaling():
    model = model_of()
    before = weights(model).clone()
    wrapper = AmpOptimWrapper(sgd(model), "float16", 1024, clip_grad={"max_norm": 1.0})
    wrapper.update_params(nn.Parameter(torch.ones(())) * 2)
    assert torch.equal(weights(model), before)
    train(wrapper, model, batches_of(1))
    assert not torch.equal(weights(model), before)


def test_only_the_batch_that_updates_is_synchronised():
    class Silenced(nn.Sequential):
        calls = 0

        def no_sync(self):
            type(self).calls += 1
            return torch.enable_grad()

    model = Silenced(model_of())
    wrapper = AmpOptimWrapper(sgd(model), "bfloat16", accumulative_counts=3)
    wrapper.initialize_count_status(model, 0, 8)
    train(wrapper, model, batches_of(8))
    assert Silenced.calls == 5


def test_a_loss_that_is_not_finite_is_refused_before_it_is_scaled():
    model = model_of()
    wrapper = AmpOptimWrapper(sgd(model), "float16")
    with pytest.raises(DataError, match="the loss is nan; no weight was changed"):
        train(wrapper, model, batches_of(1), factor=math.nan)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"dtype": "float61"}, "mixed precision knows no dtype 'float61'; did you mean 'float16'"),
        ({"dtype": torch.float32}, "mixed precision knows no dtype 'torch.float32'"),
        ({"loss_scale": "dynamik"}, "loss_scale should be 'dynamic', a number above 0 or a dict, got 'dynamik'"),
        ({"loss_scale": 0.0}, "a number above 0 or a dict, got 0.0"),
        ({"loss_scale": -1}, "a number above 0 or a dict, got -1"),
        ({"loss_scale": math.inf}, "a number above 0 or a dict, got inf"),
        ({"loss_scale": math.nan}, "a number above 0 or a dict, got nan"),
        ({"loss_scale": True}, "a number above 0 or a dict, got True"),
        ({"loss_scale": {"init_scal": 1.0}}, "loss_scale has no setting 'init_scal'; did you mean 'init_scale'"),
        ({"loss_scale": {"init_scale": 0}}, "loss_scale's init_scale should be a number above 0, got 0"),
        ({"loss_scale": {"growth_factor": 0.5}}, "growth_factor should be above 1 and its backoff_factor below"),
        ({"loss_scale": {"backoff_factor": 1.5}}, "growth_factor should be above 1 and its backoff_factor below"),
        ({"accumulative_counts": 0}, "accumulative_counts must be a positive integer, got 0"),
        ({"clip_grad": {"max": 1.0}}, "gradient clipping by norm has no setting 'max'"),
    ],
)
def test_wrong_settings_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        AmpOptimWrapper(sgd(model_of()), **words)


def test_weights_in_float16_are_refused():
    with pytest.raises(ConfigError, match=r"keeps the weights in float32, these are in float16; leave out \.half\(\)"):
        AmpOptimWrapper(sgd(model_of().half()), "float16")
