from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from simtrain import registry
from simtrain.errors import ConfigError, DataError, ServableError
from simtrain.heads import AsymmetricHead, EmptyHead, GatedHead, SequentialHead
from simtrain.heads.sequential_layers import LAYERS

# Arguments other than the defaults, so that a forgotten one shows.
UNUSUAL: dict[str, dict[str, Any]] = {
    "AlphaDropout": {"p": 0.3, "inplace": True},
    "BatchNorm1d": {"num_features": 6, "eps": 0.1, "momentum": 0.4, "affine": False, "track_running_stats": False},
    "CELU": {"alpha": 0.7, "inplace": False},
    "Dropout": {"p": 0.3, "inplace": True},
    "ELU": {"alpha": 0.7, "inplace": True},
    "GELU": {"approximate": "tanh"},
    "GroupNorm": {"num_groups": 3, "num_channels": 6, "eps": 0.1, "affine": False},
    "Hardsigmoid": {"inplace": True},
    "Hardswish": {"inplace": True},
    "Hardtanh": {"min_val": -0.5, "max_val": 0.25, "inplace": True},
    "Identity": {},
    "LayerNorm": {"normalized_shape": [6], "eps": 0.1, "elementwise_affine": True, "bias": False},
    "LeakyReLU": {"negative_slope": 0.3, "inplace": True},
    "Linear": {"in_features": 6, "out_features": 5, "bias": False},
    "LogSigmoid": {},
    "LogSoftmax": {"dim": 0},
    "Mish": {"inplace": True},
    "PReLU": {"num_parameters": 6},
    "RMSNorm": {"normalized_shape": [6], "eps": 0.1, "elementwise_affine": False},
    "ReLU": {"inplace": True},
    "ReLU6": {"inplace": True},
    "SELU": {"inplace": True},
    "SiLU": {"inplace": True},
    "Sigmoid": {},
    "Softmax": {"dim": 1},
    "Softplus": {"beta": 2.0, "threshold": 0.5},
    "Softsign": {},
    "Tanh": {},
}


class Doubling(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def test_every_layer_is_tried() -> None:
    assert set(UNUSUAL) == set(LAYERS)
    assert len(LAYERS) >= 25
    for name, words in UNUSUAL.items():
        assert set(words) == set(LAYERS[name].words)


@pytest.mark.parametrize("name", UNUSUAL)
def test_a_layer_with_all_its_settings_is_saved_and_loaded(tmp_path: Path, name: str) -> None:
    size = 5 if name == "Linear" else 6
    head = SequentialHead(getattr(nn, name)(**UNUSUAL[name]), output_size=size, input_embedding_size=6)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_()
    head(torch.randn(8, 6))
    head.save(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    assert described["layers"] == [{"type": name, **UNUSUAL[name]}]
    loaded = SequentialHead.load(tmp_path).eval()
    vectors = torch.randn(4, 6)
    assert torch.equal(loaded(vectors.clone()), head.eval()(vectors.clone()))
    assert repr(loaded) == repr(head)


@given(
    names=st.lists(st.sampled_from(["Linear", "ReLU", "LayerNorm", "Tanh", "BatchNorm1d", "GatedHead"]), max_size=4),
    size=st.integers(1, 6),
    last=st.integers(1, 6),
)
@settings(max_examples=30)
def test_sizes_that_follow_are_filled_in(names: list[str], size: int, last: int) -> None:
    layers = [{"type": name, **({"out_features": i + 2} if name == "Linear" else {})} for i, name in enumerate(names)]
    config = {"type": "SequentialHead", "layers": [*layers, {"type": "Linear", "out_features": last}]}
    head = registry.heads.build({**config, "output_size": last}, size).eval()
    assert head(torch.zeros(3, size)).shape == (3, last)
    assert (head.input_embedding_size, len(head)) == (size, len(names) + 1)
    again = SequentialHead(**json.loads(json.dumps(head.get_config_dict())))
    again.load_state_dict(head.state_dict())
    vectors = torch.randn(3, size)
    assert torch.equal(again.eval()(vectors), head(vectors))


def test_it_gives_what_torch_sequential_gives() -> None:
    layers = nn.Linear(5, 7), nn.ReLU(), nn.Dropout(0.2), nn.Linear(7, 3)
    head, vectors = SequentialHead(*layers, output_size=3).eval(), torch.randn(4, 5)
    assert torch.equal(head(vectors), nn.Sequential(*layers).eval()(vectors))
    assert head.input_embedding_size == 5
    assert list(head) == list(layers)
    assert head[0] is layers[0]


@pytest.mark.parametrize(
    ("layers", "size"),
    [
        ([nn.Linear(5, 4)], 5),
        ([nn.ReLU(), nn.Dropout(), nn.Linear(5, 4)], 5),
        ([nn.LayerNorm(4)], 4),
        ([nn.GroupNorm(2, 4)], 4),
        ([GatedHead(4)], 4),
        ([nn.ReLU()], None),
        ([Doubling(), nn.Linear(5, 4)], None),
    ],
)
def test_the_input_size_is_what_the_layers_say(layers: list[nn.Module], size: int | None) -> None:
    head = SequentialHead(layers=layers, output_size=4)
    assert head.input_embedding_size == size
    assert head.get_config_dict()["input_embedding_size"] == size if size else True


def test_without_a_known_input_size_any_width_goes_in() -> None:
    head = SequentialHead(Doubling(), output_size=3)
    assert torch.equal(head(torch.ones(1, 3)), torch.full((1, 3), 2.0))
    with pytest.raises(DataError, match=r"^SequentialHead takes vectors of 3 dimensions, got 2; build the head"):
        SequentialHead(Doubling(), output_size=3, input_embedding_size=3)(torch.ones(1, 2))


def test_a_head_of_unknown_input_size_is_saved_and_loaded(tmp_path: Path) -> None:
    SequentialHead(nn.Tanh(), output_size=3).save(tmp_path)
    loaded = SequentialHead.load(tmp_path)
    assert loaded.input_embedding_size is None
    assert torch.equal(loaded(torch.ones(1, 3)), torch.ones(1, 3).tanh())


def test_heads_inside_are_given_what_is_known_of_the_items() -> None:
    sides = AsymmetricHead(3, query=GatedHead(3))
    head = SequentialHead(nn.Identity(), sides, output_size=3)
    meta = {"side": torch.tensor([1, 0])}
    vectors = torch.randn(2, 3)
    assert torch.equal(head(vectors, meta=meta), sides(vectors, meta=meta))
    with pytest.raises(DataError, match="two sides"):
        head(vectors)


def test_a_layer_of_the_users_can_be_trained_but_not_saved(tmp_path: Path) -> None:
    head = SequentialHead(nn.Linear(3, 3), Doubling(), output_size=3)
    head(torch.ones(1, 3)).sum().backward()
    with pytest.raises(ConfigError, match=r"^layer 1 is a Doubling, which a saved head cannot describe: use AlphaDrop"):
        head.save(tmp_path)
    assert not list(tmp_path.iterdir())


class MyLinear(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 1


class MyHead(EmptyHead):
    pass


def shared() -> list[nn.Module]:
    layer = nn.Linear(3, 3)
    return [layer, nn.ReLU(), layer]


def tied() -> list[nn.Module]:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    return [first, second]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([MyLinear(3, 3)], "^layer 0 is a MyLinear, which a saved head cannot describe"),
        ([nn.Sequential(nn.Linear(3, 3))], "^layer 0 is a Sequential, which a saved head cannot describe"),
        (shared(), r"^layer 0 and layer 2 share the weight 'weight', which a saved head cannot say; give each its own"),
        (tied(), "^layer 0 and layer 1 share the weight 'weight'"),
        (
            [nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))],
            "^layer 0 is a ParametrizedLinear, which a saved head cannot describe",
        ),
        ([nn.utils.spectral_norm(nn.Linear(3, 3))], "^layer 0, Linear, was altered after it was built"),
    ],
)
def test_what_would_not_load_is_not_saved(tmp_path: Path, layers: list[nn.Module], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SequentialHead(*layers, output_size=3).save(tmp_path)


def test_a_head_of_the_users_own_in_it_is_loaded_where_it_is_allowed(tmp_path: Path) -> None:
    SequentialHead(nn.Linear(3, 3), MyHead(3, dropout=0.5), output_size=3).save(tmp_path)
    with pytest.raises(
        ServableError, match=r"layer 1 has the unknown type '.*:MyHead'.* load\(\.\.\., allow=\[MyHead\]\)"
    ):
        SequentialHead.load(tmp_path)
    loaded = SequentialHead.load(tmp_path, allow=[MyHead])
    assert type(loaded[1]) is MyHead
    assert loaded[1].get_config_dict()["dropout"] == 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"layers": []}, r"^give one or more layers, either one by one or as layers=\[...\]; got 0 in all"),
        ({"layers": [{"out_features": 2}]}, r"^layer 0 must be a module or its config \{'type': NAME, ...\}, got"),
        ({"layers": ["ReLU"]}, "^layer 0 must be a module or its config .*, got 'ReLU'"),
        (
            {"layers": [{"type": "Linaer", "out_features": 4}]},
            "^layer 0 has the unknown type 'Linaer'; did you mean 'Linear",
        ),
        ({"layers": [{"type": "Bilinear"}]}, "^layer 0 has the unknown type 'Bilinear'"),
        ({"layers": [{"type": "Linear"}]}, "^layer 0, Linear: .*out_features"),
        (
            {"layers": [{"type": "Linear", "out_feature": 4}]},
            "^layer 0, Linear, has no setting 'out_feature'; did you mean 'out_features'",
        ),
        (
            {"layers": [{"type": "Linear", "out_features": 0}]},
            "^layer 0, Linear: out_features must be a positive integer, got 0",
        ),
        (
            {"layers": [{"type": "Linear", "out_features": "4"}]},
            "^layer 0, Linear: out_features must be a positive integer, got '4'",
        ),
        ({"layers": [{"type": "Dropout", "p": 2}]}, "^layer 0, Dropout: dropout probability has to be between 0 and 1"),
        (
            {"layers": [{"type": "ReLU"}, {"type": "Linear", "in_features": 5, "out_features": 4}]},
            "^layer 1, Linear, takes 5 dimensions, but 3 come in",
        ),
        (
            {"layers": [{"type": "Linear", "out_features": 7}, {"type": "LayerNorm", "normalized_shape": 8}]},
            "^layer 1, LayerNorm, takes 8 dimensions, but 7 come in",
        ),
        ({"layers": [GatedHead(4)]}, "^layer 0, GatedHead, takes 4 dimensions, but 3 come in"),
        (
            {"layers": [{"type": "LinearHead", "output": 4}]},
            "^layer 0: head 'LinearHead' has no setting 'output'; did you mean 'output_size'",
        ),
        ({"layers": [nn.Linear(3, 5)]}, "^output_size is 4, but the layers give 5 dimensions"),
        ({"layers": [nn.Tanh()]}, "^output_size is 4, but the layers give 3 dimensions"),
        ({"layers": [nn.Tanh()], "output_size": 0}, "^output_size must be a positive integer, got 0"),
    ],
)
@pytest.mark.usefixtures("without_type_checks")
def test_layers_that_do_not_fit_are_errors(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SequentialHead(3, **{"output_size": 4, **words})


def test_sizes_that_nothing_says_are_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"^layer 0, Linear: give in_features; nothing says how many dimensions come"):
        SequentialHead({"type": "Linear", "out_features": 4}, output_size=4)
    with pytest.raises(ConfigError, match=r"^layer 1, BatchNorm1d: give num_features; nothing says"):
        SequentialHead(Doubling(), {"type": "BatchNorm1d"}, output_size=4, input_embedding_size=4)
    with pytest.raises(ConfigError, match=r"^layer 0: head 'GatedHead': missing a required argument"):
        SequentialHead({"type": "GatedHead"}, output_size=4)


def test_arguments_given_twice_are_errors() -> None:
    with pytest.raises(ConfigError, match=r"^input_embedding_size is given twice, as 3 and as 4"):
        SequentialHead(3, nn.Tanh(), output_size=3, input_embedding_size=4)
    with pytest.raises(ConfigError, match=r"^give one or more layers, either one by one or as layers"):
        SequentialHead(nn.Tanh(), layers=[nn.Tanh()], output_size=3)


def test_a_folder_that_names_other_classes_is_refused(tmp_path: Path) -> None:
    SequentialHead(nn.Tanh(), output_size=3).save(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"Tanh"', '"os.system"'))
    with pytest.raises(ServableError, match=r"config\.json does not describe a SequentialHead: layer 0 has the"):
        SequentialHead.load(tmp_path)
