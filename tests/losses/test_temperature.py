import copy
import math

import pytest
import torch

from simtrain.errors import ConfigError
from simtrain.losses import (
    CombinedLoss,
    LearntTemperature,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
    NTXentLoss,
    ScheduledTemperature,
    SupConLoss,
)
from simtrain.losses.temperature import step_temperatures

GROUPS = torch.tensor([0, 0, 1, 1, 2, 2])


def pair_batch(n=4):
    pairs = torch.arange(2 * n).view(2, n).T
    return torch.randn(2 * n, 5).double(), pairs, torch.ones(n).double(), torch.zeros(2 * n, dtype=torch.long)


@pytest.mark.parametrize("kind", [NTXentLoss, SupConLoss])
@pytest.mark.parametrize("with_memory", [False, True])
def test_the_gradient_of_a_learnt_temperature(kind, with_memory):
    loss = kind({"initial": 0.3}).double()
    x, memory = torch.randn(6, 4).double().requires_grad_(), torch.randn(9, 4).double()

    def value(one):
        return one.memory_loss(x, GROUPS, memory, torch.arange(9) % 3) if with_memory else one(x, GROUPS)

    parameter = loss.temperature.log_temperature
    got = torch.autograd.grad(value(loss), [parameter, x])
    assert value(loss).item() == pytest.approx(value(kind(0.3)).item())
    step = 1e-5
    with torch.no_grad():
        up, down = (value(kind(math.exp(math.log(0.3) + d))) for d in (step, -step))
    assert got[0].item() == pytest.approx(((up - down) / (2 * step)).item(), rel=1e-6)
    torch.testing.assert_close(got[1], torch.autograd.grad(value(kind(0.3)), x)[0])


def test_a_learnt_temperature_of_the_ranking_loss_is_clips():
    x, pairs, labels, rows = pair_batch()
    loss = MultipleNegativesRankingLoss(symmetric=True, temperature={"initial": 0.07})
    unit = torch.nn.functional.normalize(x)
    logits = unit[:4] @ unit[4:].T / 0.07
    target = torch.arange(4)
    clip = (torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(loss(x, pairs, labels, rows), clip, rtol=1e-6, atol=1e-6)
    assert float(loss.figures()["temperature"]) == pytest.approx(0.07)
    (gradient,) = torch.autograd.grad(loss(x, pairs, labels, rows), list(loss.parameters()))
    assert gradient != 0


def test_a_learnt_temperature_stays_within_its_bounds_and_does_not_stick():
    temperature = LearntTemperature(0.5, low=0.1, high=0.9)
    optimizer = torch.optim.SGD(temperature.parameters(), lr=10)
    for sign, bound in ((1, 0.1), (-1, 0.9), (1, 0.1)):
        for _ in range(3):
            optimizer.zero_grad()
            (sign * temperature()).backward()
            optimizer.step()
        assert temperature().item() == pytest.approx(bound)
        assert temperature.eval()().item() == pytest.approx(bound)
        temperature.train()


def test_it_is_trained_and_saved():
    loss = NTXentLoss({"initial": 0.5})
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    loss(torch.randn(6, 4), GROUPS).backward()
    optimizer.step()
    now = loss.temperature().item()
    assert now != 0.5
    other = NTXentLoss({"initial": 0.07})
    other.load_state_dict(loss.state_dict())
    assert other.temperature().item() == now
    assert copy.deepcopy(loss).temperature().item() == now


@pytest.mark.parametrize(
    ("shape", "middle"), [("exponential", 0.2), ("linear", 0.25), ("cosine", 0.25)], ids=["equal ratios", "line", "cos"]
)
def test_a_schedule(shape, middle):
    temperature = ScheduledTemperature(0.4, 0.1, 4, shape)
    values = []
    for _ in range(7):
        values.append(temperature())
        temperature.step()
    assert values[0] == 0.4
    assert values[2] == pytest.approx(middle)
    assert values[4:] == pytest.approx([0.1, 0.1, 0.1])
    assert values == sorted(values, reverse=True)


def test_a_schedule_is_saved_and_moves_once_a_step_wherever_it_is():
    inner = NTXentLoss({"start": 0.4, "end": 0.1, "steps": 2})
    shared = SupConLoss(inner.temperature)
    loss = CombinedLoss({"sizes": MatryoshkaLoss(inner, [4, 2]), "shared": shared})
    loss(torch.randn(6, 4), GROUPS)
    step_temperatures(loss)
    assert inner.temperature() == pytest.approx(0.2)
    loss(torch.randn(6, 4), GROUPS)
    assert loss.figures()["sizes_temperature_4"] == pytest.approx(0.2)
    assert shared.figures()["temperature"] == pytest.approx(0.2)
    again = NTXentLoss({"start": 0.4, "end": 0.1, "steps": 2})
    again.load_state_dict(inner.state_dict())
    assert again.temperature() == pytest.approx(0.2)


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (0, "NTXentLoss: temperature must be a finite number above zero, got 0"),
        ({"initial": 2.0}, "low <= initial <= high must hold and low < high, got 0.01, 2.0, 1.0"),
        ({"initial": -1}, "LearntTemperature: initial must be a finite number above zero, got -1"),
        ({"intial": 0.1}, "NTXentLoss: a temperature has no setting 'intial'; did you mean 'initial'"),
        ({"start": 0.1}, "NTXentLoss: a scheduled temperature needs start, end and steps"),
        (
            {"start": 0.1, "end": 0.2, "steps": 0},
            "ScheduledTemperature: steps must be a whole number, 1 or more",
        ),
        ({"start": 0.1, "end": 0.2, "steps": 9, "shape": "step"}, "ScheduledTemperature: unknown shape 'step'"),
    ],
)
def test_wrong_temperatures_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        NTXentLoss(given)


@pytest.mark.usefixtures("without_type_checks")
def test_a_scale_beside_a_temperature_is_refused():
    with pytest.raises(ConfigError, match="the temperature stands in place of scale, got scale=5 beside it"):
        MultipleNegativesRankingLoss(scale=5, temperature=0.1)
    with pytest.raises(ConfigError, match=r"MultipleNegativesRankingLoss: temperature must be .* above zero, got 0"):
        MultipleNegativesRankingLoss(temperature=0)
