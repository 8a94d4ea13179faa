"""The pickles of quaterion-models: read without running anything that they ask for."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from simtrain import heads
from simtrain.encoders import PrecomputedEncoder
from simtrain.errors import ServableError
from simtrain.heads.sequential_layers import LAYERS
from simtrain.models import SimilarityModel


def saved(path: Path, head: nn.Module | None = None) -> SimilarityModel:
    model = SimilarityModel({"b": PrecomputedEncoder(2), "a": PrecomputedEncoder(2)}, head or heads.GatedHead(4))
    model.save(path, format="quaterion")
    return model


class Harmful:
    """Pickled, it asks for a file to be made when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.file}",)


@pytest.mark.parametrize("head", ["GatedHead", "SequentialHead"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_pickles_with_code_run_nothing(tmp_path: Path, head: str, wrapped: bool) -> None:
    model = tmp_path / "model"
    saved(model, heads.GatedHead(4) if head == "GatedHead" else heads.SequentialHead(nn.Linear(4, 2), output_size=2))
    harmful: Any = Harmful(tmp_path / "harm")
    if wrapped and head == "GatedHead":
        harmful = {"gates": torch.zeros(4), "more": harmful}
    elif wrapped:
        harmful, layers = nn.Sequential(nn.Linear(4, 2)), harmful
        harmful[0].__dict__["forward"] = layers
    torch.save(harmful, model / "head" / "weights.bin")
    with pytest.raises(ServableError, match=r"weights\.bin asks for \w+\.system, and no code is loaded from files; it"):
        SimilarityModel.load(model)
    assert not (tmp_path / "harm").exists()
    torch.load(model / "head" / "weights.bin", weights_only=False)
    assert (tmp_path / "harm").exists()  # the pickle would have done it


def test_what_is_attached_to_pickled_layers_does_not_come_along(tmp_path: Path) -> None:
    model = saved(tmp_path, heads.SequentialHead(nn.Linear(4, 4), nn.Tanh(), output_size=4))
    expected = model.encode(np.ones((1, 4))[:, :2])
    layers = nn.Sequential(*(layer for layer in model.head))
    layers[0].__dict__["forward"] = nn.Identity()
    layers[1]._forward_hooks[0] = nn.LogSigmoid()
    torch.save(layers, tmp_path / "head" / "weights.bin")
    loaded = SimilarityModel.load(tmp_path)
    np.testing.assert_array_equal(loaded.encode([[1, 1]]), expected)
    assert "forward" not in vars(loaded.head[0])
    assert not loaded.head[1]._forward_hooks


def crafted(**attributes: Any) -> nn.Module:
    layer = nn.Linear(4, 4)
    layer.__dict__.update(attributes)
    return layer


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (lambda: nn.Sequential(nn.Conv1d(4, 4, 1)), r"asks for torch\.nn\.modules\.conv\.Conv1d, and no code is loa"),
        (lambda: nn.Linear(4, 4), r"must hold a torch\.nn\.Sequential, got Linear"),
        (lambda: {"0.weight": torch.zeros(4, 4)}, r"must hold a torch\.nn\.Sequential, got dict"),
        (lambda: nn.Sequential(nn.Sequential(nn.Tanh())), r"cannot be rebuilt: layer 0 is a Sequential, which"),
        (lambda: nn.Sequential(crafted(in_features=9)), r"cannot be rebuilt: layer 0, Linear, was altered"),
        (lambda: nn.Sequential(crafted(in_features="x")), r"layers that cannot be rebuilt: .*in_features"),
        (lambda: nn.Sequential(crafted(_parameters=None)), r"weights\.bin (holds layers that cannot be|is damaged)"),
        (lambda: nn.Sequential(nn.Linear(4, 3)), r"does not describe a SequentialHead|gives? 3|give 3 dimensions"),
    ],
)
def test_other_pickles_of_layers_are_refused(tmp_path: Path, pickled: Any, message: str) -> None:
    saved(tmp_path, heads.SequentialHead(nn.Linear(4, 4), output_size=4))
    torch.save(pickled(), tmp_path / "head" / "weights.bin")
    with pytest.raises(ServableError, match=message):
        SimilarityModel.load(tmp_path)


def test_loading_layers_lets_nothing_more_through_afterwards(tmp_path: Path) -> None:
    saved(tmp_path, heads.SequentialHead(nn.Linear(4, 4), output_size=4))
    before = set(torch.serialization.get_safe_globals())
    SimilarityModel.load(tmp_path)
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_that_we_can_describe_goes_into_a_pickle_and_back(tmp_path: Path, name: str) -> None:
    words: dict[str, Any] = {
        "GroupNorm": {"num_groups": 2, "num_channels": 4},
        "Linear": {"in_features": 4, "out_features": 4},
        "BatchNorm1d": {"num_features": 4},
        "PReLU": {"num_parameters": 4},
        "LogSoftmax": {"dim": 1},
        "Softmax": {"dim": 1},
    }.get(name, {"normalized_shape": 4} if name in ("LayerNorm", "RMSNorm") else {})
    model = saved(tmp_path, heads.SequentialHead(getattr(nn, name)(**words), nn.Linear(4, 4), output_size=4).eval())
    vectors = torch.randn(5, 4)
    loaded = SimilarityModel.load(tmp_path)
    torch.testing.assert_close(loaded.head(vectors), model.head(vectors), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"gates": torch.zeros(3)}, r"weights\.bin does not fit GatedHead: .*size mismatch"),
        ({}, r"weights\.bin does not fit GatedHead: .*Missing key"),
        (OrderedDict(gates=torch.zeros(4), more=torch.zeros(1)), r"does not fit GatedHead: .*Unexpected key"),
        ({1: torch.zeros(4)}, r"weights\.bin does not fit GatedHead"),
        ({"gates": [0.0] * 4}, r"weights\.bin does not hold tensors by name"),
        (torch.zeros(4), r"weights\.bin does not hold tensors by name"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, weights: Any, message: str) -> None:
    saved(tmp_path)
    torch.save(weights, tmp_path / "head" / "weights.bin")
    with pytest.raises(ServableError, match=message):
        SimilarityModel.load(tmp_path)


def test_an_old_torch_is_asked_to_be_updated_rather_than_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, heads.SequentialHead(nn.Linear(4, 4), output_size=4))
    monkeypatch.delattr(torch.serialization, "safe_globals")
    with pytest.raises(ServableError, match=r"is a pickle of layers, which can be read safely from torch 2\.5 on"):
        SimilarityModel.load(tmp_path)
