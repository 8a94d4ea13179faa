from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from simtrain.encoders import ModuleEncoder
from simtrain.errors import ConfigError, ServableError


def backbone() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))


class OwnBackbone(ModuleEncoder):
    """Builds its own module from JSON values, so that it can be rebuilt from files."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(2, width), embedding_size=width, trainable=True)
        self.width = width

    def get_config_dict(self) -> dict[str, Any]:
        return {"width": self.width}


def test_frozen_module_stays_in_eval_mode_without_gradients() -> None:
    encoder = ModuleEncoder(backbone(), 3)
    encoder.train()
    batch = torch.randn(5, 4)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    assert torch.equal(encoder(batch), encoder(batch))
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert not any(part.training for part in encoder.modules())
    assert not encoder(batch).requires_grad
    assert not encoder.trainable


def test_trainable_module_trains() -> None:
    encoder = ModuleEncoder(backbone(), 3, trainable=True)
    assert encoder.train() is encoder
    assert all(part.training for part in encoder.modules())
    assert encoder(torch.randn(5, 4)).requires_grad
    assert not encoder.eval().module.training


def test_transform_is_applied_to_each_item() -> None:
    encoder = ModuleEncoder(nn.Flatten(), 2, transform=np.negative)
    assert encoder(encoder.get_collate_fn()([np.ones(2), np.zeros(2)])).tolist() == [[-1, -1], [0, 0]]
    assert encoder.get_config_dict()["transform"] != ModuleEncoder(nn.Flatten(), 2).get_config_dict()["transform"]


@pytest.mark.parametrize(("module", "got"), [(nn.Identity(), r"\(2, 3, 4\)"), (nn.LSTM(4, 3), "tuple")])
def test_output_of_another_shape_is_an_error(module: nn.Module, got: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"must give a tensor of shape \(batch, 3\), as embedding_size says, got {got}"
    ):
        ModuleEncoder(module, 3)(torch.zeros(2, 3, 4))


def test_what_is_no_module_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"module must be a torch\.nn\.Module, got"):
        ModuleEncoder.__init__.__wrapped__(OwnBackbone(1), "resnet", 3)  # type: ignore[attr-defined]


def test_reloads_into_the_callers_module(tmp_path: Path) -> None:
    saved = ModuleEncoder(backbone(), 3, trainable=True)
    saved(torch.randn(8, 4))  # moves the running statistics, which are buffers
    saved.eval().save(tmp_path)
    other = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    loaded = ModuleEncoder.load(tmp_path, module=other).eval()
    batch = torch.randn(5, 4)
    assert torch.equal(loaded(batch), saved(batch))
    assert loaded.trainable


def test_without_a_module_nothing_is_loaded(tmp_path: Path) -> None:
    ModuleEncoder(backbone(), 3).save(tmp_path)
    with pytest.raises(
        ServableError, match=r"no code is loaded from files: pass module=\.\.\. .*, or save a registered"
    ):
        ModuleEncoder.load(tmp_path)


def test_subclass_that_builds_its_module_reloads_by_itself(tmp_path: Path) -> None:
    saved = OwnBackbone(width=3)
    saved.save(tmp_path)
    loaded = OwnBackbone.load(tmp_path)
    assert type(loaded) is OwnBackbone
    assert torch.equal(loaded(torch.ones(1, 2)), saved(torch.ones(1, 2)))


@pytest.mark.parametrize("damage", ["missing", "truncated", "other"])
def test_damaged_weights_are_named(tmp_path: Path, damage: str) -> None:
    OwnBackbone(width=3).save(tmp_path)
    file = tmp_path / "weights.safetensors"
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:-4])
    else:
        (tmp_path / "encoder.json").write_text('{"width": 4}')
    with pytest.raises(ServableError, match=r"weights\.safetensors (is missing|is damaged|does not fit Linear)"):
        OwnBackbone.load(tmp_path)


def test_shared_weights_are_saved_once_and_reload(tmp_path: Path) -> None:
    layer = nn.Linear(2, 2)
    saved = ModuleEncoder(nn.Sequential(layer, layer), 2)
    saved.save(tmp_path)
    other = nn.Linear(2, 2)
    loaded = ModuleEncoder.load(tmp_path, module=nn.Sequential(other, other))
    assert torch.equal(loaded(torch.ones(1, 2)), saved(torch.ones(1, 2)))
