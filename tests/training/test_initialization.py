from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.nn.utils import parametrizations

from simtrain.errors import CheckpointError, ConfigError
from simtrain.training.initialization import initialize
from simtrain.training.initializers import Kaiming, Normal, TruncNormal, Uniform, initializers

REFERENCES = [
    ({"type": "Constant", "val": 0.5}, lambda w: nn.init.constant_(w, 0.5)),
    ({"type": "Xavier"}, nn.init.xavier_normal_),
    ({"type": "Xavier", "gain": 2, "distribution": "uniform"}, lambda w: nn.init.xavier_uniform_(w, 2)),
    ({"type": "Normal"}, nn.init.normal_),
    ({"type": "Normal", "mean": 3, "std": 0.1}, lambda w: nn.init.normal_(w, 3, 0.1)),
    ({"type": "TruncNormal"}, nn.init.trunc_normal_),
    (
        {"type": "TruncNormal", "std": 0.02, "a": -0.01, "b": 0.03},
        lambda w: nn.init.trunc_normal_(w, 0, 0.02, -0.01, 0.03),
    ),
    ({"type": "Uniform"}, nn.init.uniform_),
    ({"type": "Uniform", "a": -2, "b": -1}, lambda w: nn.init.uniform_(w, -2, -1)),
    ({"type": "Kaiming"}, lambda w: nn.init.kaiming_normal_(w, 0, "fan_out", "relu")),
    (
        {"type": "Kaiming", "a": 0.3, "mode": "fan_in", "nonlinearity": "leaky_relu", "distribution": "uniform"},
        lambda w: nn.init.kaiming_uniform_(w, 0.3, "fan_in", "leaky_relu"),
    ),
]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 2)
        self.norm = nn.BatchNorm1d(3)
        self.neck = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4, bias=False))
        self.head = nn.Linear(4, 2)


def unchanged(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}


def changed_by(model: nn.Module, init_cfg: Any) -> set[str]:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    initialize(model, init_cfg)
    return set(before) - unchanged(model, before)


@pytest.mark.parametrize(("config", "reference"), REFERENCES, ids=lambda v: v["type"] if isinstance(v, dict) else "")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_values_are_those_of_torch_under_the_same_seed(config: dict[str, Any], reference: Any, dtype: Any) -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Linear(5, 4)).to(dtype)
    torch.manual_seed(3)
    initialize(model, {**config, "bias": 0.25})
    torch.manual_seed(3)
    for layer in model:
        expected = torch.empty_like(layer.weight)
        with torch.no_grad():
            reference(expected)
        assert torch.equal(layer.weight, expected)
        assert layer.bias.eq(0.25).all()
        assert layer.weight.requires_grad
        assert layer.weight.is_leaf


def test_the_same_seed_gives_the_same_weights_and_another_gives_others() -> None:
    weights = []
    for seed in (1, 1, 2):
        model = Net()
        torch.manual_seed(seed)
        initialize(model, [{"type": "Normal"}, {"type": "Kaiming", "layer": "Linear"}])
        weights.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_without_layer_and_override_every_layer_with_a_weight_is_set() -> None:
    model = Net()
    initialize(model, {"type": "Constant", "val": 7, "bias": 8})
    for name, parameter in model.named_parameters():
        assert parameter.eq(7 if name.endswith("weight") else 8).all()


def test_the_model_itself_may_be_the_layer() -> None:
    assert changed_by(nn.Linear(2, 1), {"type": "Constant", "val": 7, "bias": 8}) == {"weight", "bias"}


@pytest.mark.parametrize("kind", ["Xavier", "Kaiming"])
def test_fans_need_two_dimensions(kind: str) -> None:
    changed = changed_by(Net(), {"type": kind, "bias": 3})
    assert changed == {"conv.weight", "conv.bias", "neck.0.weight", "neck.0.bias", "neck.2.weight"} | {
        "head.weight",
        "head.bias",
    }


def test_layers_are_chosen_by_class_and_base_class() -> None:
    linear = {"neck.0.weight", "neck.0.bias", "neck.2.weight", "head.weight", "head.bias"}
    assert changed_by(Net(), {"type": "Constant", "val": 7, "bias": 8, "layer": "Linear"}) == linear
    conv = {"conv.weight", "conv.bias"}
    assert changed_by(Net(), {"type": "Constant", "val": 7, "bias": 8, "layer": ["Conv1d", "Linear"]}) == linear | conv
    assert changed_by(Net(), {"type": "Constant", "val": 7, "bias": 8, "layer": "_ConvNd"}) == conv
    # Its projection is a class derived from Linear.
    attention = nn.MultiheadAttention(4, 2)
    assert "out_proj.weight" in changed_by(attention, {"type": "Constant", "val": 7, "layer": "Linear"})


def test_an_override_stands_for_one_submodule() -> None:
    model = Net()
    initialize(
        model,
        {
            "type": "Constant",
            "val": 1,
            "layer": "Linear",
            "override": [{"name": "neck", "val": 2}, {"name": "neck.2", "type": "Uniform", "a": 3, "b": 3}],
        },
    )
    assert [layer.weight.mean().item() for layer in (model.head, model.neck[0], model.neck[2])] == [1, 2, 3]
    assert not model.conv.weight.eq(1).any()


def test_with_an_override_alone_nothing_else_is_set() -> None:
    assert changed_by(Net(), {"type": "Constant", "val": 7, "bias": 1, "override": {"name": "head"}}) == {
        "head.weight",
        "head.bias",
    }


def test_an_override_may_have_layers_and_complete_settings() -> None:
    config = {"type": "Constant", "override": {"name": "neck", "layer": "Linear", "val": 7}}
    assert changed_by(Net(), config) == {"neck.0.weight", "neck.0.bias", "neck.2.weight"}


def test_later_configs_come_after_earlier_ones_and_omegaconf_will_do() -> None:
    model = Net()
    config = OmegaConf.create([{"type": "Constant", "val": 1}, {"type": "Constant", "val": 2, "layer": ["Linear"]}])
    initialize(model, config)
    assert model.conv.weight.eq(1).all()
    assert model.head.weight.eq(2).all()
    initialize(model, config[0])
    assert model.head.weight.eq(1).all()
    initialize(model, [])
    assert model.head.weight.eq(1).all()


def test_pretrained_is_last_whatever_its_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = Net()
    torch.save({"state_dict": source.state_dict()}, tmp_path / "x.pt")
    model = Net()
    initialize(model, [{"type": "Pretrained", "checkpoint": str(tmp_path / "x.pt")}, {"type": "Constant", "val": 1}])
    assert unchanged(model, source.state_dict()) == set(source.state_dict())
    torch.save({"head.weight": torch.full((2, 4), 5.0)}, tmp_path / "y.pt")
    with caplog.at_level(logging.WARNING):
        initialize(
            model, [{"type": "Pretrained", "checkpoint": str(tmp_path / "y.pt")}, {"type": "Constant", "val": 1}]
        )
    assert model.head.weight.eq(5).all()
    assert model.head.bias.eq(0).all()
    assert "names of the model are not in the file: 'conv.weight'" in caplog.text


@pytest.mark.parametrize("prefix", ["backbone", "backbone."])
def test_a_prefix_takes_a_part_out_of_a_checkpoint(tmp_path: Path, prefix: str) -> None:
    source = nn.ModuleDict({"backbone": Net(), "backbone2": nn.Linear(2, 1)})
    torch.save(source.state_dict(), tmp_path / "x.pt")
    config = {"type": "Pretrained", "checkpoint": str(tmp_path / "x.pt"), "prefix": prefix}
    whole = nn.ModuleDict({"net": Net(), "other": nn.Linear(2, 1)})
    other = whole["other"].weight.clone()
    initialize(whole, {"type": "Constant", "val": 1, "layer": "BatchNorm1d", "override": {"name": "net", **config}})
    assert torch.equal(whole["net"].conv.weight, source["backbone"].conv.weight)
    assert torch.equal(whole["other"].weight, other)
    with pytest.raises(CheckpointError, match=r"begins with 'bckbone\.'; did you mean 'backbone\.'"):
        initialize(Net(), {**config, "prefix": "bckbone"})
    with pytest.raises(CheckpointError, match="there is no checkpoint file"):
        initialize(Net(), {"type": "Pretrained", "checkpoint": str(tmp_path / "none.pt")})


def test_a_submodule_with_a_config_of_its_own_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    model = Net()
    model.neck.init_cfg = {"type": "Constant", "val": 3}
    model.head.init_cfg = None
    changed = changed_by(model, {"type": "Constant", "val": 1, "bias": 9})
    assert changed == {"conv.weight", "conv.bias", "norm.bias", "head.weight", "head.bias"}, "norm.weight was 1"
    changed = changed_by(model, {"type": "Constant", "val": 5, "override": {"name": "neck.0"}})
    assert changed == set()
    assert "the override of 'neck.0' has no effect" in caplog.text
    assert changed_by(model.neck, model.neck.init_cfg) == {"0.weight", "0.bias", "2.weight"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"type": "Xavir"}, "unknown initializer type 'Xavir'; did you mean 'Xavier'"),
        ({"val": 1}, "init_cfg needs a 'type', got"),
        ({"type": "Xavier", "gian": 1}, "'Xavier' has no setting 'gian'; did you mean 'gain'"),
        ({"type": "Xavier", "layr": "Linear"}, "'Xavier' has no setting 'layr'; did you mean 'layer'"),
        ({"type": "Constant"}, "'Constant': missing a required argument: 'val'"),
        ({"type": "Xavier", "layer": "Linea"}, "layer 'Linea' is in no module of Net; nearest: 'Linear'"),
        ({"type": "Xavier", "layer": ["Linear", "Conv2d"]}, "layer 'Conv2d' is in no module of Net; nearest: 'Conv1d'"),
        ({"type": "Xavier", "layer": "ReLU"}, "no layer of class ReLU has a 'weight' or 'bias' of its own to set"),
        ({"type": "Xavier", "layer": 3}, "layer should be a class name or a list of class names, got 3"),
        ({"type": "Xavier", "layer": []}, "layer should be a class name"),
        ({"type": "Xavier", "override": {"name": "haed"}}, "override names 'haed', which Net lacks; nearest: 'head'"),
        ({"type": "Xavier", "override": {"gain": 2}}, "an override needs the 'name' of a submodule"),
        ({"type": "Xavier", "override": {"name": ""}}, "override names ''"),
        ({"type": "Xavier", "override": {"name": "head", "val": 2}}, "'Xavier' has no setting 'val'"),
        ({"type": "Xavier", "override": {"name": "head", "override": {"name": "neck"}}}, "give a list of overrides"),
        ({"type": "Xavier", "override": "head"}, "override should be a dict or a list of dicts, got 'head'"),
        (
            {"type": "Xavier", "distribution": "beta"},
            "Xavier: unknown distribution 'beta'; accepted: 'normal', 'uniform'",
        ),
        ({"type": "Xavier", "gain": -1}, "Xavier: gain should be 0 or more, got Xavier"),
        ({"type": "Kaiming", "mode": "fan_avg"}, "Kaiming: unknown mode 'fan_avg'; "),
        ({"type": "Kaiming", "nonlinearity": "rlu"}, "Kaiming: unknown nonlinearity 'rlu'; did you mean 'relu'"),
        ({"type": "Normal", "std": -1}, "Normal: std should be 0 or more"),
        ({"type": "TruncNormal", "std": 0}, "TruncNormal: std should be above 0"),
        ({"type": "TruncNormal", "a": 2}, "TruncNormal: a should be less than b"),
        ({"type": "Uniform", "a": 2}, "Uniform: a should not be above b"),
        ({"type": "Normal", "mean": float("nan")}, "Normal: mean should be a finite number, got nan"),
        ({"type": "Normal", "bias": "1e-3"}, "Normal: bias should be a finite number, got '1e-3'"),
        ({"type": "Constant", "val": True}, "Constant: val should be a finite number, got True"),
        ({"type": "Pretrained", "checkpoint": None}, "Pretrained: checkpoint should be a string, got None"),
        ({"type": "Pretrained", "checkpoint": "x.pt", "layer": "Linear"}, "Pretrained has no setting 'layer'"),
        ("Xavier", "init_cfg should be a dict or a list of dicts, got 'Xavier'"),
        (None, "init_cfg should be a dict or a list of dicts, got None"),
        ([{"type": "Xavier"}, 3], "init_cfg should be a dict or a list of dicts"),
    ],
)
@pytest.mark.usefixtures("without_type_checks")
def test_wrong_configs_are_errors_and_change_nothing(config: Any, message: str) -> None:
    model = Net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rest = config if isinstance(config, list) else [config]
    # A right config before the wrong one: it must not have been applied either.
    given = [{"type": "Constant", "val": 9}, *rest] if isinstance(rest[0], dict) else config
    with pytest.raises(ConfigError) as error:
        initialize(model, given)
    assert message in str(error.value)
    assert unchanged(model, before) == set(before)


def test_lazy_layers_need_a_batch_first() -> None:
    with pytest.raises(ConfigError, match="the size of a LazyLinear is not known yet; run one batch"):
        initialize(nn.Sequential(nn.LazyLinear(2)), {"type": "Xavier"})


def test_the_padding_row_of_an_embedding_stays_zero() -> None:
    model = nn.Embedding(4, 2, padding_idx=1)
    initialize(model, {"type": "Constant", "val": 3})
    assert model.weight.tolist() == [[3, 3], [0, 0], [3, 3], [3, 3]]


def test_parametrised_weights_are_set_through_their_parametrisation() -> None:
    model = parametrizations.weight_norm(nn.Linear(3, 2))
    initialize(model, {"type": "Uniform", "a": 1, "b": 2})
    assert model.weight.min() >= 1 - 1e-6
    assert model.weight.max() <= 2 + 1e-6


def test_layers_without_values_or_parameters_are_passed_over() -> None:
    for model in (nn.ReLU(), nn.LayerNorm(3, elementwise_affine=False), nn.LSTM(2, 3), nn.Embedding(0, 3)):
        assert changed_by(model, {"type": "Kaiming"}) == set()


def test_the_names_are_those_of_the_contract() -> None:
    assert initializers.names() == ["Constant", "Kaiming", "Normal", "Pretrained", "TruncNormal", "Uniform", "Xavier"]
    assert (Kaiming().mode, Normal().std, TruncNormal().a, Uniform().b) == ("fan_out", 1, -2, 1)
