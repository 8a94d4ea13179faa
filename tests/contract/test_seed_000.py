"""A minimal model class with four abstract steps: numbers 000-1 to 000-18."""

import argparse
import dataclasses
import logging
import math
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader

from simtrain import BaseModel, Runner, registry
from simtrain.errors import CheckpointError, ConfigError, ContractError, UnknownNameError
from simtrain.losses import TripletLoss
from tests.contract.seed_models import ToyModel, YourModelClassName, toy_batches


def loader(n=4):
    return DataLoader(toy_batches(n), batch_size=None)


@pytest.mark.contract("000-1")
def test_000_1_a_model_is_a_module_that_is_built_without_arguments_and_works_alone():
    model = ToyModel()
    assert isinstance(model, nn.Module)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = None
    for batch in toy_batches(1) * 30:
        loss = model.train_step(batch)["loss"]
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * first


@pytest.mark.contract("000-2", "ruling-3")
@pytest.mark.parametrize("lacking", ["train_step", "valid_step", "test_step", "compute_loss"])
def test_000_2_a_class_that_lacks_a_step_cannot_be_built(lacking):
    steps = {name: lambda self, *a: {} for name in ("train_step", "valid_step", "test_step", "compute_loss")}
    del steps[lacking]
    with pytest.raises(TypeError, match=f"Lacking cannot be built yet.*missing: {lacking}"):
        type("Lacking", (BaseModel,), steps)()


@pytest.mark.contract("000-2", "ruling-3")
def test_000_2_the_base_class_itself_and_a_forward_without_mode_are_abstract():
    class Plain(BaseModel):
        def forward(self, x):
            return x

    for kind in (BaseModel, Plain):
        with pytest.raises(ContractError, match="give it a forward with a parameter 'mode', or all of train_step"):
            kind()


@pytest.mark.contract("000-3", "000-6")
def test_000_3_train_step_returns_a_live_loss_from_compute_loss():
    model, batch = ToyModel(), toy_batches(1)[0]
    loss = model.train_step(batch)["loss"]
    assert loss.shape == ()
    assert loss.requires_grad
    assert torch.equal(loss, model.compute_loss(**batch)["loss"])
    assert torch.equal(loss, model.valid_step(batch)["loss"])


@pytest.mark.contract("000-4", "000-5")
def test_000_4_scalars_are_logged_and_other_results_are_not(trainer):
    class Detailed(ToyModel):
        def train_step(self, batch):
            loss = self.compute_loss(**batch)["loss"]
            return {"loss": loss, "loss_aux": loss * 2, "accuracy": 0.5, "embedding": batch["x"], "note": "text"}

        valid_step = test_step = train_step

    fitted = trainer(max_epochs=1)
    model = Detailed()
    fitted.fit(model, loader(), loader())
    assert {"train_loss", "train_loss_aux", "train_accuracy", "validation_loss", "validation_loss_aux"} <= set(
        fitted.callback_metrics
    )
    assert not [name for name in fitted.callback_metrics if "embedding" in name or "note" in name]
    assert set(trainer().test(model, loader(), verbose=False)[0]) == {"test_loss", "test_loss_aux", "test_accuracy"}


@pytest.mark.contract("000-5")
def test_000_5_validation_figures_are_means_over_the_items(trainer):
    batches = [toy_batches(1, rows=6)[0], toy_batches(1, rows=2, seed=1)[0]]
    model = ToyModel()
    logged = trainer().validate(model, DataLoader(batches, batch_size=None), verbose=False)[0]["validation_loss"]
    losses = [model.valid_step(batch)["loss"].item() for batch in batches]
    assert logged == pytest.approx((6 * losses[0] + 2 * losses[1]) / 8)


@pytest.mark.contract("000-7", "wall_e-13")
@pytest.mark.parametrize("wrap", [None, "model", "state_dict", "safetensors"])
def test_000_7_load_checkpoint_takes_every_usual_form(tmp_path, wrap):
    source, model = ToyModel(), ToyModel()
    state = source.state_dict()
    path = tmp_path / ("weights.safetensors" if wrap == "safetensors" else "weights.pt")
    if wrap == "safetensors":
        save_file(state, path)
    else:
        torch.save(state if wrap is None else {wrap: state, "epoch": 3}, path)
    assert model.load_checkpoint(str(path)) == []
    assert torch.equal(model.linear.weight, source.linear.weight)


@pytest.mark.contract("000-7", "wall_e-13")
def test_000_7_load_checkpoint_takes_lightnings_own_file(tmp_path, trainer):
    model = ToyModel()
    fitted = trainer(max_epochs=1)
    fitted.fit(model, loader())
    fitted.save_checkpoint(tmp_path / "run.ckpt")
    fresh = ToyModel()
    assert fresh.load_checkpoint(str(tmp_path / "run.ckpt")) == []
    assert torch.equal(fresh.linear.weight, model.linear.weight)


@pytest.mark.contract("000-7", "wall_e-13")
def test_000_7_missing_names_are_returned_and_unexpected_ones_reported(tmp_path, caplog):
    torch.save({"linear.weight": torch.ones(1, 10), "extra.bias": torch.ones(1)}, tmp_path / "w.pt")
    with caplog.at_level(logging.WARNING, logger="simtrain"):
        assert ToyModel().load_checkpoint(str(tmp_path / "w.pt")) == ["linear.bias"]
    assert "extra.bias" in caplog.text


@pytest.mark.contract("000-7", "wall_e-13")
def test_000_7_a_file_in_which_nothing_matches_is_an_error_and_changes_nothing(tmp_path):
    torch.save({"other.weight": torch.ones(2)}, tmp_path / "w.pt")
    model = ToyModel()
    before = model.linear.weight.clone()
    with pytest.raises(CheckpointError, match=r"other\.weight"):
        model.load_checkpoint(str(tmp_path / "w.pt"))
    assert torch.equal(model.linear.weight, before)


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


@pytest.mark.contract("000-7", "wall_e-13")
def test_000_7_a_checkpoint_with_code_is_refused_and_nothing_of_it_runs(tmp_path):
    torch.save({"linear.weight": torch.ones(1, 10), "trap": Trap(tmp_path / "ran")}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="safetensors"):
        ToyModel().load_checkpoint(str(tmp_path / "w.pt"))
    assert not (tmp_path / "ran").exists()


@dataclasses.dataclass
class YourSettings:
    type: str = "YourModelClassName"
    hidden_size: int = 16


@pytest.mark.contract("000-8")
@pytest.mark.parametrize(
    "cfg",
    [
        {"type": "YourModelClassName", "hidden_size": 16},
        OmegaConf.create({"type": "YourModelClassName", "hidden_size": 16}),
        argparse.Namespace(type="YourModelClassName", hidden_size=16),
        YourSettings(),
        OmegaConf.structured(YourSettings),
    ],
    ids=["dict", "omegaconf", "namespace", "dataclass", "structured"],
)
def test_000_8_from_cfg_takes_every_kind_of_config(cfg):
    model = BaseModel.from_cfg(cfg)
    assert type(model) is YourModelClassName
    assert model.hidden_size == 16


@pytest.mark.contract("000-8")
def test_000_8_from_cfg_on_a_class_needs_no_type_and_the_base_class_does():
    assert YourModelClassName.from_cfg({"hidden_size": 5}).hidden_size == 5
    assert YourModelClassName.from_cfg({}).hidden_size == 8
    with pytest.raises(ValueError, match="the config has no 'type', and BaseModel itself cannot be built"):
        BaseModel.from_cfg({"hidden_size": 5})
    with pytest.raises(ConfigError, match="'YourModelClassName' is no ToyModel"):
        ToyModel.from_cfg({"type": "YourModelClassName"})


@pytest.mark.contract("000-8")
@pytest.mark.usefixtures("without_type_checks")
def test_000_8_something_else_is_no_config():
    with pytest.raises(ContractError, match=r"a model's config is a dict, .* got list"):
        ToyModel.from_cfg(["dim"])


@pytest.mark.contract("000-9", "ruling-6")
def test_000_9_unknown_keys_are_errors_that_name_the_nearest():
    with pytest.raises(ConfigError, match="YourModelClassName has no setting 'hiden_size'; did you mean 'hidden_size'"):
        YourModelClassName.from_cfg({"hiden_size": 5})


@pytest.mark.contract("000-9")
def test_000_9_an_argument_without_default_is_asked_for_and_kwargs_take_everything():
    class Open(ToyModel):
        def __init__(self, dim, **more):
            super().__init__(dim)
            self.more = more

    with pytest.raises(ConfigError, match="Open cannot be built from this config: missing a required argument: 'dim'"):
        Open.from_cfg({})
    assert Open.from_cfg({"dim": 3, "anything": 1}).more == {"anything": 1}


class Composed(ToyModel):
    def __init__(self, loss, options: dict, parts=()):
        super().__init__()
        self.loss_part, self.options, self.parts = loss, options, parts


@pytest.mark.contract("000-9")
def test_000_9_nested_configs_are_built_but_not_where_a_dict_is_asked_for():
    model = Composed.from_cfg(
        {
            "loss": {"type": "TripletLoss", "margin": 0.3},
            "options": {"type": "TripletLoss"},
            "parts": [{"type": "YourModelClassName", "hidden_size": 3}],
        }
    )
    assert isinstance(model.loss_part, TripletLoss)
    assert model.loss_part.margin == 0.3
    assert model.options == {"type": "TripletLoss"}
    assert model.parts[0].hidden_size == 3
    with pytest.raises(ConfigError, match="unknown type 'TripletLos' in a model's config; did you mean 'TripletLoss'"):
        Composed.from_cfg({"loss": {"type": "TripletLos"}, "options": {}})


@pytest.mark.contract("000-10", "ruling-6")
def test_000_10_pretrained_weights_are_loaded_and_missing_ones_are_errors_unless_allowed(tmp_path):
    weights = {"linear.weight": torch.full((1, 10), 3.0)}
    torch.save(weights, tmp_path / "w.pt")
    cfg = {"pretrained": str(tmp_path / "w.pt")}
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors of ToyModel: linear.bias; set allow_missing_keys"):
        ToyModel.from_cfg(cfg)
    model = ToyModel.from_cfg({**cfg, "allow_missing_keys": True})
    assert torch.equal(model.linear.weight, weights["linear.weight"])


@pytest.mark.contract("000-11", "ruling-8")
def test_000_11_the_device_is_followed_where_it_is_given():
    assert ToyModel.from_cfg({"device": "cpu"}).device == torch.device("cpu")
    assert ToyModel.from_cfg({"device": torch.device("meta")}).device == torch.device("meta")
    with torch.device("meta"):
        assert ToyModel.from_cfg({}).device == torch.device("meta")
    with pytest.raises(ConfigError, match="the device 'cuda:99' cannot be used here"):
        ToyModel.from_cfg({"device": "cuda:99"})
    with pytest.raises(ConfigError, match="the device 'gpux' cannot be used here"):
        ToyModel.from_cfg({"device": "gpux"})


@pytest.mark.contract("000-12")
def test_000_12_the_registry_of_models_takes_modules_alone_and_each_name_once():
    with pytest.raises(ContractError, match=r"a model has to be a subclass of torch.nn.modules.module.Module"):
        registry.models.register_module("NoModule")(dict)
    with pytest.raises(KeyError, match="the model name 'YourModelClassName' is taken"):
        registry.models.register_module("YourModelClassName")(ToyModel)
    with pytest.raises(
        UnknownNameError, match="unknown model type 'YourModelClass'; did you mean 'YourModelClassName'"
    ):
        BaseModel.from_cfg({"type": "YourModelClass"})


@pytest.mark.contract("000-13", "ruling-7", "wall_e-15")
def test_000_13_freezing_searches_the_pattern_and_gives_the_model_back():
    model = YourModelClassName()
    assert model.freeze_parameters(regex="^layer") is model
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["layer.weight", "layer.bias"]
    assert model.freeze_parameters().num_trainable_parameters == 0
    assert model.freeze_parameters(False, "bias$").num_trainable_parameters == 8 + 1
    with pytest.raises(ConfigError, match="layers"):
        model.freeze_parameters(regex="^layers")


class Normed(ToyModel):
    def __init__(self):
        super().__init__()
        self.norm, self.other = nn.BatchNorm1d(10), nn.BatchNorm1d(10)


@pytest.mark.contract("000-13")
def test_000_13_frozen_normalisation_layers_stay_in_eval_mode_when_asked():
    model = Normed().freeze_parameters(regex="^norm", norm_eval=True)
    assert (model.norm.training, model.other.training) == (False, True)
    assert model.eval().train() is model
    assert (model.norm.training, model.other.training) == (False, True)
    model.freeze_parameters(False, "^norm")
    assert model.norm.training
    assert not Normed().freeze_parameters(regex="^norm").eval().train().norm.weight.requires_grad
    assert Normed().freeze_parameters(regex="^norm").train().norm.training


class DictOutput(ToyModel):
    def forward(self, x):
        return {"prediction": self.linear(x)}


@pytest.mark.contract("000-14")
@pytest.mark.parametrize("name", ["graph", "graph.png", "nested/graph.svg"])
def test_000_14_the_drawn_architecture_is_where_it_is_said_to_be(tmp_path, name):
    pytest.importorskip("torchview")
    model = DictOutput()
    path = Path(model.visualize_architecture({"x": torch.ones(2, 10)}, str(tmp_path / name)))
    assert path.is_file()
    assert path.stat().st_size > 500
    assert path.suffix == (".svg" if name.endswith("svg") else ".png")


@pytest.mark.contract("000-15")
def test_000_15_the_histogram_of_a_parameter_counts_its_values():
    pytest.importorskip("matplotlib")
    figure = ToyModel().plot_parameter_histogram("linear.weight", bins=5)
    assert type(figure).__name__ == "Figure"
    assert "linear.weight" in figure.axes[0].get_title()
    with pytest.raises(KeyError, match=r"linear\.weight"):
        ToyModel().plot_parameter_histogram("linear.wieght")


@pytest.mark.contract("000-16")
def test_000_16_outliers_are_counted_by_parameter():
    model = ToyModel(dim=100)
    with torch.no_grad():
        model.linear.weight.zero_()
        model.linear.weight[0, 7] = 50.0
    found = {row["parameter"]: row for row in model.detect_parameter_outliers(sigma=3)}
    assert found["linear.weight"] == {
        "parameter": "linear.weight",
        "total": 100,
        "outliers": 1,
        "ratio": 0.01,
        "max_val": 50.0,
        "min_val": 0.0,
    }


class Parameterless(BaseModel):
    def forward(self, x, mode="tensor"):
        return {"loss": x.mean()} if mode == "loss" else x


@pytest.mark.contract("000-17")
def test_000_17_the_properties_follow_the_parameters_and_need_none():
    model = ToyModel()
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)
    assert (model.num_parameters, model.num_trainable_parameters) == (11, 11)
    assert model.bfloat16().dtype == torch.bfloat16
    assert ToyModel().to("meta").device == torch.device("meta")
    model.linear = model.linear.double()
    assert model.dtype == torch.float64
    empty = Parameterless()
    assert (empty.device, empty.dtype) == (torch.device("cpu"), torch.float32)
    assert (empty.num_parameters, empty.num_trainable_parameters) == (0, 0)


@pytest.mark.contract("000-18", "ruling-12")
def test_000_18_the_minimal_example_runs_under_the_runner():
    toy_model = ToyModel()
    toy_model.freeze_parameters(regex="^linear")
    assert toy_model.num_trainable_parameters == 0
    toy_model.freeze_parameters(False)
    cfg = {"optimizer": {"type": "SGD", "lr": 0.05}}
    before = toy_model.train_step(toy_batches(1)[0])["loss"].item()
    runner = Runner(model=toy_model, epochs=5, train_data_loader=loader(), cfg=cfg)
    runner.fit()
    after = toy_model.train_step(toy_batches(1)[0])["loss"].item()
    assert math.isfinite(after)
    assert after < before
