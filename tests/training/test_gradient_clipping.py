import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from simtrain.errors import ConfigError
from simtrain.training.gradient_clipping import check_clipping, clip_gradients


def parameters(seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    made = [nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for shape in ((3, 2), (4,), ())]
    for parameter in made:
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * scale
    return made


def elements(made):
    return torch.cat([parameter.grad.flatten() for parameter in made])


@given(
    seed=st.integers(0, 5),
    max_norm=st.floats(0.01, 20),
    norm_type=st.sampled_from([1, 2, 2.0, 3.5, math.inf]),
)
def test_norm_clipping_is_the_formula(seed, max_norm, norm_type):
    made = parameters(seed)
    before = elements(made).clone()
    total = before.abs().max() if norm_type == math.inf else before.abs().pow(norm_type).sum() ** (1 / norm_type)
    norm = clip_gradients(made, "norm", max_norm=max_norm, norm_type=norm_type)
    torch.testing.assert_close(norm, total)
    torch.testing.assert_close(elements(made), before * min(1.0, max_norm / (float(total) + 1e-6)))


@given(seed=st.integers(0, 5), clip_value=st.floats(0.01, 5))
def test_value_clipping_is_the_formula(seed, clip_value):
    made = parameters(seed)
    before = elements(made).clone()
    norm = clip_gradients(made, type="value", clip_value=clip_value)
    torch.testing.assert_close(norm, before.square().sum().sqrt())
    assert torch.equal(elements(made), before.clamp(-clip_value, clip_value))


@pytest.mark.parametrize("settings", [{"max_norm": 1.0}, {"type": "value", "clip_value": 1}])
def test_without_gradients_the_norm_is_zero(settings):
    assert clip_gradients([nn.Parameter(torch.ones(2))], **settings).item() == 0.0
    assert clip_gradients([], **settings).item() == 0.0


@pytest.mark.parametrize("settings", [{"max_norm": 0.5}, {"type": "value", "clip_value": 0.5}])
def test_parameters_without_a_gradient_are_passed_over(settings):
    made = parameters()
    alone = parameters()
    frozen = nn.Parameter(torch.ones(7))
    norm = clip_gradients(iter([frozen, *made]), **settings)
    assert torch.equal(norm, clip_gradients(alone, **settings))
    assert torch.equal(elements(made), elements(alone))
    assert frozen.grad is None


def test_an_infinite_gradient_shows_in_the_norm_and_is_cut_by_value():
    made = parameters()
    made[1].grad[0] = math.inf
    assert clip_gradients(made, "value", clip_value=1.0).item() == math.inf
    assert elements(made).abs().max() <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"type": "nrom", "max_norm": 1.0}, "unknown type of gradient clipping 'nrom'; did you mean 'norm'"),
        ({"max_nrom": 1.0}, "gradient clipping by norm has no setting 'max_nrom'; did you mean 'max_norm'"),
        ({"type": "value", "max_norm": 1.0}, "gradient clipping by value has no setting 'max_norm'; accepted: 'clip_"),
        ({"clip_value": 1.0}, "gradient clipping by norm has no setting 'clip_value'; accepted: 'max_norm'"),
        ({}, "gradient clipping by norm needs 'max_norm': the bound"),
        ({"type": "value"}, "gradient clipping by value needs 'clip_value': the bound"),
        ({"max_norm": 0.0}, "max_norm should be a number above 0, got 0.0"),
        ({"max_norm": -1}, "max_norm should be a number above 0, got -1"),
        ({"max_norm": math.nan}, "max_norm should be a number above 0, got nan"),
        ({"max_norm": "1"}, "max_norm should be a number above 0, got '1'"),
        ({"max_norm": True}, "max_norm should be a number above 0, got True"),
        ({"max_norm": math.inf}, "max_norm should be finite, got inf; leave clipping out for no bound"),
        ({"max_norm": 1.0, "norm_type": 0}, "norm_type should be a number above 0, got 0"),
        ({"type": "value", "clip_value": 0}, "clip_value should be a number above 0, got 0"),
    ],
)
def test_wrong_settings_are_refused_before_there_is_a_gradient(settings, message):
    with pytest.raises(ConfigError, match=message):
        check_clipping(settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "gradient clipping by norm needs 'max_norm'"),
        ({"max_norm": 1.0, "clip_value": 1.0}, "gradient clipping by norm has no setting 'clip_value'"),
        ({"type": "value", "max_norm": 1.0, "clip_value": 1.0}, "by value has no setting 'max_norm'"),
    ],
)
def test_a_call_is_checked_likewise(settings, message):
    made = parameters()
    before = elements(made).clone()
    with pytest.raises(ConfigError, match=message):
        clip_gradients(made, **settings)
    assert torch.equal(elements(made), before)


def test_sparse_gradients_are_answered_with_what_to_do():
    table = nn.EmbeddingBag(5, 2, sparse=True)
    table(torch.tensor([[0, 1]])).sum().backward()
    for settings in ({"max_norm": 1.0}, {"type": "value", "clip_value": 1.0}):
        with pytest.raises(ConfigError, match=r"sparse gradients cannot be clipped; .* NgramEncoder\(sparse=False\)"):
            clip_gradients(table.parameters(), **settings)
