from __future__ import annotations

import pytest
import torch
from torch import nn

from simtrain.errors import ConfigError
from simtrain.training.parameters import (
    count_parameters,
    freeze_parameters,
    frozen_norm_layers,
    module_device,
    module_dtype,
    nearest_names,
)


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)
        self.head = nn.Linear(2, 1)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 2)
        self.out = nn.Linear(2, 4, bias=False)
        self.out.weight = self.embed.weight


def trainable(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def test_a_pattern_is_found_anywhere_in_a_name() -> None:
    model = Toy()
    assert freeze_parameters(model, regex="^linear") == ["linear.weight", "linear.bias"]
    assert trainable(model) == ["norm.weight", "norm.bias", "head.weight", "head.bias"]
    assert freeze_parameters(model, regex="bias$") == ["linear.bias", "norm.bias", "head.bias"]
    assert trainable(model) == ["norm.weight", "head.weight"]
    assert freeze_parameters(model, False, "linear.weight") == ["linear.weight"]
    assert trainable(model) == ["linear.weight", "norm.weight", "head.weight"]


def test_without_a_pattern_all_are_meant() -> None:
    model = Toy()
    names = trainable(model)
    assert freeze_parameters(model) == names
    assert trainable(model) == []
    assert freeze_parameters(model, freeze=False) == names
    assert trainable(model) == names
    assert freeze_parameters(nn.ReLU()) == []


def test_a_frozen_parameter_is_not_moved_by_a_gradient_that_it_had() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(torch.ones(1, 2)).sum().backward()
    freeze_parameters(model, regex="weight")
    before = model.weight.clone()
    optimizer.step()
    assert torch.equal(model.weight, before)
    assert model.bias.grad is not None


def test_a_shared_parameter_is_found_by_each_of_its_names() -> None:
    model = Tied()
    assert freeze_parameters(model, regex="^out") == ["out.weight"]
    assert not model.embed.weight.requires_grad


def test_integer_parameters_stay_frozen() -> None:
    model = nn.Module()
    model.codes = nn.Parameter(torch.ones(2, dtype=torch.int8), requires_grad=False)
    assert freeze_parameters(model, freeze=False) == []
    assert freeze_parameters(model) == ["codes"]


def test_a_pattern_without_a_match_names_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"regex '\^liner' is found in no .* of Toy; nearest: 'linear"):
        freeze_parameters(Toy(), regex="^liner")
    with pytest.raises(ConfigError, match="it has none"):
        freeze_parameters(nn.ReLU(), regex="x")


def test_a_malformed_pattern_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"regex '\(' is not a pattern: "):
        freeze_parameters(Toy(), regex="(")


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm1d(2),
        nn.BatchNorm2d(2),
        nn.BatchNorm3d(2),
        nn.SyncBatchNorm(2),
        nn.InstanceNorm1d(2, affine=True),
        nn.GroupNorm(1, 2),
        nn.LayerNorm(2),
        nn.RMSNorm(2),
        nn.LazyBatchNorm1d(),
    ],
    ids=lambda norm: type(norm).__name__,
)
def test_every_kind_of_norm_layer_is_found(norm: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(2, 2), norm)
    assert frozen_norm_layers(model) == []
    freeze_parameters(model, regex="0")
    assert frozen_norm_layers(model) == []
    freeze_parameters(model, regex="^1")
    assert frozen_norm_layers(model) == [norm]


def test_a_norm_layer_counts_only_if_all_of_it_is_frozen() -> None:
    model = Toy()
    freeze_parameters(model, regex="norm.weight")
    assert frozen_norm_layers(model) == []
    freeze_parameters(model, regex="norm.bias")
    assert frozen_norm_layers(model) == [model.norm]


def test_a_norm_layer_without_parameters_goes_with_the_module_around_it() -> None:
    inner = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2, affine=False)))
    model = nn.Sequential(inner, nn.Linear(2, 2))
    assert frozen_norm_layers(model) == []
    freeze_parameters(model, regex="^0")
    assert frozen_norm_layers(model) == [inner[1][0]]
    assert frozen_norm_layers(nn.BatchNorm1d(2, affine=False)) == [], "nothing is frozen where there is nothing"


def test_device_and_dtype_come_from_parameters_then_buffers_then_defaults() -> None:
    assert module_device(nn.Linear(1, 1, device="meta")).type == "meta"
    assert module_dtype(nn.Linear(1, 1).bfloat16()) is torch.bfloat16
    buffered = nn.Module()
    buffered.register_buffer("index", torch.zeros(1, dtype=torch.int64, device="meta"))
    buffered.register_buffer("scale", torch.zeros(1, dtype=torch.float64, device="meta"))
    assert module_device(buffered).type == "meta"
    assert module_dtype(buffered) is torch.float64
    assert module_device(nn.ReLU()) == torch.device("cpu")
    assert module_device(nn.ReLU(), default=torch.device("cuda", 1)) == torch.device("cuda:1")
    assert module_dtype(nn.ReLU()) is torch.float32


def test_counts_take_shared_parameters_once() -> None:
    assert count_parameters(Tied()) == 8
    model = Toy()
    assert count_parameters(model) == 3 * 2 + 2 + 4 + 2 + 1
    freeze_parameters(model, regex="linear")
    assert count_parameters(model, trainable_only=True) == 7
    assert count_parameters(nn.ReLU()) == 0


def test_a_lazy_model_cannot_be_counted_yet() -> None:
    model = nn.Sequential(nn.LazyLinear(2))
    with pytest.raises(ConfigError, match=r"'0\.weight' is not known yet; run one batch"):
        count_parameters(model)
    model(torch.ones(1, 3))
    assert count_parameters(model) == 8


def test_of_many_names_few_are_shown() -> None:
    hint = nearest_names("layer7.weigt", [f"layer{i}.weight" for i in range(100)])
    assert hint.startswith("nearest: 'layer7.weight', ")
    assert hint.endswith("(and 92 more)")
