"""Parameters with settings of their own, found by patterns."""

import re

import pytest
import torch
from torch import nn

from simtrain import Runner, TrainableModel, load_cfg, registry
from simtrain.errors import ConfigError
from simtrain.training.configured_optimizer import ConfiguredOptimizer
from simtrain.training.parameter_groups import regroup
from tests.contract.runner_parts import loader
from tests.contract.seed_models import ToyModel
from tests.training.models import group_model


class Stack(nn.Module):
    """Like a transformer in a list of modules: embeddings, numbered layers, a last norm."""

    def __init__(self):
        super().__init__()
        inner = nn.Module()
        inner.embeddings = nn.Embedding(3, 2)
        inner.layer = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
        inner.norm = nn.LayerNorm(2)
        self.body, self.head = nn.Sequential(inner), nn.Linear(2, 1)


def settings(model, entries, **words):
    optimizer = torch.optim.AdamW(model.parameters(), **{"lr": 1.0, "weight_decay": 0.5, **words})
    regroup(optimizer, model.named_parameters(), entries)
    names = {id(p): name for name, p in model.named_parameters()}
    found = {names[id(p)]: group for group in optimizer.param_groups for p in group["params"]}
    assert found.keys() == dict(model.named_parameters()).keys()
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(found)
    return found, optimizer


def test_later_entries_go_over_earlier_ones_and_the_rest_stays():
    entries = [{"pattern": "layer", "lr": 0.1, "weight_decay": 0.2}, {"pattern": "bias|norm", "weight_decay": 0.0}]
    found, optimizer = settings(Stack(), entries)
    for name, group in found.items():
        assert group["lr"] == (0.1 if "layer" in name else 1.0)
        decay = 0.0 if "bias" in name or "norm" in name else 0.2 if "layer" in name else 0.5
        assert group["weight_decay"] == decay
        assert group["betas"] == (0.9, 0.999)
    assert [group.get("name") for group in optimizer.param_groups][:3] == [None, "layer", "layer + bias|norm"]


def test_layer_decay_goes_down_from_the_top():
    found, _ = settings(Stack(), [{"pattern": "^body", "lr": 0.8, "layer_decay": 0.5}])
    rates = {name: group["lr"] for name, group in found.items()}
    assert rates["body.0.norm.weight"] == rates["body.0.layer.2.bias"] == 0.8
    assert rates["body.0.layer.1.weight"] == 0.4
    assert rates["body.0.layer.0.weight"] == 0.2
    assert rates["body.0.embeddings.weight"] == 0.1
    assert rates["head.weight"] == 1.0


def test_groups_of_their_own_are_updated_as_their_own_optimizers_would():
    torch.manual_seed(0)
    model, twin = Stack(), Stack()
    twin.load_state_dict(model.state_dict())
    _, optimizer = settings(model, [{"pattern": "head", "lr": 0.25, "weight_decay": 0.0}])
    body = torch.optim.AdamW(twin.body.parameters(), lr=1.0, weight_decay=0.5)
    head = torch.optim.AdamW(twin.head.parameters(), lr=0.25, weight_decay=0.0)
    for _ in range(3):
        for one, steps in ((model, [optimizer]), (twin, [body, head])):
            loss = sum((p**2 + p).sum() for p in one.parameters())
            for step in steps:
                step.zero_grad()
            loss.backward()
            for step in steps:
                step.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, twin.state_dict()[name])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"lr": 1.0}, "optimizer.parameter_groups holds {pattern: …, lr: …}, got {'lr': 1.0}"),
        ("head", "optimizer.parameter_groups holds {pattern: …, lr: …}, got 'head'"),
        (
            {"pattern": "hed"},
            "the pattern 'hed' of optimizer.parameter_groups is found in the name of no param",
        ),
        ({"pattern": "("}, "the group '(' is not a pattern"),
        ({"pattern": "head", "lrr": 1}, "a group of parameters has no setting 'lrr'; did you mean 'lr'?"),
        ({"pattern": "head", "lr": float("inf")}, "lr of the group 'head' should be a number from 0 on, got inf"),
        ({"pattern": "head", "lr": -1}, "lr of the group 'head' should be a number from 0 on, got -1"),
        (
            {"pattern": "head", "layer_decay": 2},
            "layer_decay of the group 'head' should be above 0 and at most 1, got",
        ),
        ({"pattern": "head", "layer_decay": 0.5}, "layer_decay: what the pattern 'head' is found in has no numbered"),
    ],
)
def test_wrong_entries_are_told(entry, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        settings(Stack(), [entry])


@pytest.mark.contract("002-13")
def test_002_13_groups_of_the_config_reach_the_optimizer_and_its_schedule():
    groups = [{"pattern": "bias", "lr": 0.5, "weight_decay": 0.0}]
    cfg = {
        "optimizer": {"type": "AdamW", "lr": 0.1, "parameter_groups": groups},
        "scheduler": {"type": "step", "warmup_rate": 0.0, "n_drops": 1},
    }
    runner = Runner(ToyModel(), 1, loader(4), cfg=cfg)
    runner.fit()
    shown = [(group["initial_lr"], group["weight_decay"]) for group in runner.optimizer.param_groups]
    assert shown == [(0.1, 0.01), (0.5, 0.0)]
    assert runner.scheduler.get_last_lr() == pytest.approx([0.01, 0.05])


def test_the_runner_tells_of_wrong_groups_before_anything_runs():
    def make(optimizer=None, **entry):
        model = ToyModel()
        given = None if optimizer is None else torch.optim.SGD(model.parameters(), lr=0.1)
        Runner(model, 1, loader(), optimizer=given, cfg={"optimizer": {"type": "AdamW", "parameter_groups": [entry]}})

    with pytest.raises(ConfigError, match=r"the pattern 'hed' of optimizer.parameter_groups"):
        make(pattern="hed")
    with pytest.raises(ConfigError, match="a group of parameters has no setting 'momentum'"):
        make(pattern="bias", momentum=0.5)
    with pytest.raises(ConfigError, match="parameter_groups is for the config's optimizer, and an optimizer was given"):
        make(optimizer=True, pattern="bias", lr=0.1)
    with pytest.raises(ConfigError, match="'parameter_group'"):
        load_cfg({"optimizer": {"type": "AdamW", "parameter_group": []}})


def test_a_similarity_model_has_groups_for_head_encoders_and_loss():
    entries = [{"pattern": "_model.head", "lr": 0.5}, {"pattern": "^_loss", "lr": 2.0}]
    loss = {"type": "ProxyAnchorLoss", "embedding_size": group_model().model.embedding_size, "num_groups": 4}
    parts = TrainableModel(
        encoders=group_model().model.encoders["default"],
        **_built({"loss": loss, "optimizer": {"type": "SGD", "lr": 0.1, "parameter_groups": entries}}),
        head=group_model().model.head,
    )
    rates = {group.get("name"): group["lr"] for group in parts.configure_optimizers().param_groups}
    assert rates["_model.head"] == 0.5
    assert rates["^_loss"] == 2.0


def _built(parts):
    from simtrain.training.parts import model_parts

    return model_parts(parts)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"lr": "fast"}, "optimizer 'AdamW': lr should be a number, got 'fast'"),
        ({"lr": None}, "optimizer 'AdamW': lr should be a number, got None"),
        ({"lr": float("inf")}, "optimizer 'AdamW': lr should be a finite number, got inf"),
        ({"weight_decay": "abc"}, "optimizer 'AdamW': weight_decay should be a number, got 'abc'"),
        ({"betas": [0.9]}, r"optimizer 'AdamW': .* \(given betas=\[0.9\]\)"),
        ({"amsgrad": "no"}, "optimizer 'AdamW': amsgrad should be true or false, got 'no'"),
    ],
)
def test_a_setting_of_another_type_is_named(setting, message):
    with pytest.raises(ConfigError, match=message):
        ConfiguredOptimizer({"type": "AdamW", **setting})([nn.Parameter(torch.zeros(1))])


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"type": "cosine", "warmup_rate": "abc"}, "scheduler 'cosine': warmup_rate should be a number, got 'abc'"),
        ({"type": "step", "decay_rate": None}, "scheduler 'step': decay_rate should be a number, got None"),
    ],
)
def test_a_schedule_setting_of_another_type_is_named(setting, message):
    with pytest.raises(ConfigError, match=message):
        registry.schedulers.build(setting, torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), 10)
