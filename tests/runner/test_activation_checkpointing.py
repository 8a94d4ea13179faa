"""Activations that are computed again: the same numbers, from less memory."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from simtrain import BaseModel, Runner
from simtrain.errors import ConfigError
from simtrain.runner.activation_checkpointing import activations_recomputed, checkpointed_modules
from tests.contract.seed_models import toy_batches


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.dropout, self.calls = nn.Linear(10, 10), nn.Dropout(0.5), 0

    def forward(self, x, *, scale):
        self.calls += 1
        return x + scale * self.dropout(self.linear(x))


class Deep(BaseModel):
    def __init__(self):
        super().__init__()
        self.layers, self.out = nn.ModuleList(Block() for _ in range(3)), nn.Linear(10, 1)

    def forward(self, x, y, mode):
        for layer in self.layers:
            x = layer(x, scale=0.5)
        error = self.out(x) - y
        return {"loss": error.square()} if mode == "loss" else [error]


def trained(patterns):
    torch.manual_seed(1)
    model = Deep()
    torch.manual_seed(2)
    data = DataLoader(toy_batches(4), batch_size=None)
    Runner(model, 2, data, data, cfg={"training": {"activation_checkpoint": patterns}}).fit()
    return model


@pytest.mark.contract("002-13", "wall_e-27")
@pytest.mark.parametrize("patterns", [[r"layers\.\d"], ["Block"], [r"layers\.0", r"layers\.2"]])
def test_wall_e_27_recomputed_activations_give_the_same_weights(patterns):
    plain, model = trained([]), trained(patterns)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    # 2 epochs of 4 batches in training, and 4 of validation; recomputed ones run twice in training.
    again = {"layers.0", "layers.2"} if len(patterns) == 2 else {"layers.0", "layers.1", "layers.2"}
    for name in ("layers.0", "layers.1", "layers.2"):
        assert plain.get_submodule(name).calls == 16
        assert model.get_submodule(name).calls == (24 if name in again else 16)
        assert type(model.get_submodule(name)) is Block


def test_fewer_tensors_are_kept_for_the_backward_pass():
    def kept(patterns):
        model, sizes = Deep(), []
        batch = toy_batches(1)[0]
        with (
            activations_recomputed(model, patterns),
            torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t),
        ):
            model.train_step(batch)
        return sum(sizes)

    assert kept(["Block"]) < 0.6 * kept([])


def test_modules_are_themselves_also_after_an_error_and_copies_work():
    model = Deep()

    def use():
        with activations_recomputed(model, ["Block"]):
            twin = copy.deepcopy(model)
            assert isinstance(model.layers[0], Block)
            assert list(twin.state_dict()) == list(model.state_dict())
            twin.train_step(toy_batches(1)[0])["loss"].backward()
            raise KeyError

    with pytest.raises(KeyError):
        use()
    assert all(type(layer) is Block for layer in model.layers)


def test_what_is_inside_of_another_one_is_left_out_and_patterns_are_of_whole_names():
    model = Deep()
    assert checkpointed_modules(model, ["layers", "Linear"]) == ["layers", "out"]
    assert checkpointed_modules(model, [r"\d", "out"]) == ["layers.0", "layers.1", "layers.2", "out"]
    for pattern, message in (
        ("layer", "'layer' is the end of no module's name in Deep"),
        ("(", "'\\(' is not a pattern"),
    ):
        with pytest.raises(ConfigError, match=f"training.activation_checkpoint: {message}"):
            Runner(model, 1, cfg={"training": {"activation_checkpoint": [pattern]}})
