"""Networks cut at a named module, or between blocks: both halves give what the whole does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from simtrain.encoders import ModuleEncoder, VisionEncoder
from simtrain.encoders.module_split import DenseSplitEncoder, example_of, second_half, states_before
from simtrain.errors import ConfigError


class Block(nn.Module):
    def __init__(self, size: int = 6) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(size, size, 3, padding=1), nn.BatchNorm2d(size), nn.ReLU())

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps + self.layers(maps)


class Stages(nn.Module):
    """A stem, stages of blocks and a last norm, with functions between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 2, stride=2)
        self.stages = nn.ModuleList([nn.Sequential(Block(), Block()), nn.Sequential(Block(), Block())])
        self.norm = nn.BatchNorm2d(6)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = torch.relu(self.stem(images))
        for stage in self.stages:
            maps = stage(maps)
        return self.norm(maps).mean((2, 3))


class Across(nn.Module):
    """What the last module takes is more than what the one before it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        first = self.first(rows)
        return self.last(self.second(first)) + first[:, :2]


def sequential() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Sequential(nn.ReLU(), nn.Linear(6, 5)), nn.Dropout(0.0), nn.Linear(5, 3))


@pytest.mark.parametrize("name", ["1", "1.1", "2", "3"])
def test_both_halves_of_a_sequential_are_the_whole(name: str) -> None:
    encoder = ModuleEncoder(sequential(), 3, trainable=f"from:{name}", input_shape=[4])
    assert isinstance(encoder, DenseSplitEncoder)
    encoder.check_split()
    batch = torch.randn(7, 4)
    states = encoder.frozen_part(batch)
    assert tuple(states.shape[1:]) == encoder.get_state_shape()
    assert torch.equal(encoder.trainable_part(states), encoder(batch))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_both_halves_of_a_backbone_are_the_whole(count: int) -> None:
    torch.manual_seed(0)
    encoder = VisionEncoder(Stages(), trainable=f"last:{count}", image_size=8)
    encoder.check_split()
    images = example_of((3, 8, 8), encoder, torch.uint8)
    states = encoder.frozen_part(images)
    assert tuple(states.shape[1:]) == encoder.get_state_shape() == (6, 4, 4)
    encoder.eval()
    assert torch.equal(encoder.trainable_part(states), encoder(images))


def test_the_halves_run_nothing_of_each_other() -> None:
    net = Stages()
    part, ran = net.stages[1][0], []
    for module in (net.stem, net.stages[0][1], part, net.norm):
        module.register_forward_hook(lambda module, *_: ran.append(module))
    states = states_before(net, part, torch.randn(2, 3, 8, 8))
    assert ran == [net.stem, net.stages[0][1]]
    ran.clear()
    second_half(net, part, states)
    assert ran == [part, net.norm]


def test_what_is_before_the_named_part_is_frozen_and_in_eval_mode() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.BatchNorm1d(4))
    encoder = ModuleEncoder(net, 4, trainable="from:2", input_shape=[4]).train()
    assert encoder.trainable
    assert [weight.requires_grad for weight in encoder.parameters()] == [False] * 4 + [True] * 4
    assert [module.training for module in net] == [False, False, True, True]
    encoder.eval()
    assert not any(module.training for module in encoder.modules())


def test_a_saved_encoder_is_cut_at_the_same_place(tmp_path: Any) -> None:
    encoder = ModuleEncoder(sequential(), 3, trainable="from:1.1", input_shape=[4])
    encoder.save(tmp_path)
    again = ModuleEncoder.load(tmp_path, module=sequential())
    again.check_split()
    assert again.get_config_dict() == encoder.get_config_dict()
    batch = torch.randn(2, 4)
    assert torch.equal(again.trainable_part(encoder.frozen_part(batch)), encoder(batch))


@pytest.mark.parametrize(
    ("module", "words", "message"),
    [
        (sequential(), {"trainable": "from:1"}, r"give ModuleEncoder\(input_shape=\.\.\.\)"),
        (sequential(), {"trainable": True, "input_shape": [4]}, "trainable=True: nothing of it can be cached"),
        (sequential(), {"input_shape": [4]}, "trainable=False: cache its embeddings, without boundary"),
        (Across(), {"trainable": "from:last", "input_shape": [4]}, "cannot be cut where training begins"),
        (sequential(), {"trainable": "from:1", "input_shape": [9]}, "cannot be cut where training begins"),
    ],
)
def test_what_cannot_be_cut_says_why(module: nn.Module, words: Any, message: str) -> None:
    size = 2 if isinstance(module, Across) else 3
    with pytest.raises(ConfigError, match=message):
        ModuleEncoder(module, size, **words).check_split()


def test_a_weight_that_takes_gradients_below_the_cut_is_refused() -> None:
    encoder = ModuleEncoder(sequential(), 3, trainable="from:3", input_shape=[4])
    encoder.module[0].weight.requires_grad_(True)
    with pytest.raises(ConfigError, match=r"the weight 'module\.0\.weight' .* lies below the boundary and takes"):
        encoder.check_split()


@pytest.mark.parametrize(
    ("trainable", "message"),
    [
        ("last:1", "trainable must be False, True or 'from:NAME'"),
        ("from:", "trainable must be False, True or 'from:NAME'"),
        ("from:4", "trainable='from:4': Sequential has no such module; accepted: .*1.1"),
    ],
)
def test_wrong_names_are_errors(trainable: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModuleEncoder(sequential(), 3, trainable=trainable)
