"""The runner's checkpoints: what they hold, when they are saved, and that a run goes on from them exactly."""

import logging

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from simtrain import BaseCallBack, Runner
from simtrain.errors import CheckpointError, ConfigError
from simtrain.runner.checkpoints.resume_source import checkpoint_files
from tests.contract.runner_parts import loader
from tests.contract.seed_models import ToyModel
from tests.runner.exact_runs import Lines, assert_equal, train

STATES = {"state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "epoch", "global_step"}


def state_of(folder, name):
    return torch.load(folder / "checkpoints" / name, weights_only=True)


@pytest.mark.contract("002-15")
def test_002_15_a_run_with_a_folder_saves_checkpoints_and_one_without_does_not(tmp_path):
    cfg = {"run_dir": str(tmp_path / "run")}
    Runner(ToyModel(), 2, loader(2), loader(1), cfg=cfg).fit()
    assert {"last.ckpt", "best.ckpt"} <= {file.name for file in (tmp_path / "run" / "checkpoints").iterdir()}
    off = {"run_dir": str(tmp_path / "off"), "checkpoint": {"enable": False}}
    Runner(ToyModel(), 1, loader(2), cfg=off).fit()
    assert not (tmp_path / "off" / "checkpoints").exists()
    assert Runner(ToyModel(), 1, loader(2)).checkpoints is None


@pytest.mark.contract("002-15")
def test_002_15_checkpoints_need_a_folder():
    with pytest.raises(ConfigError, match=r"checkpoints need a folder: set run_dir \(or checkpoint\.folder\)"):
        Runner(ToyModel(), 1, loader(2), cfg={"checkpoint": {"enable": True}})


@pytest.mark.contract("002-18", "design-7", "wall_e-6")
def test_002_18_a_checkpoint_holds_the_run_and_is_read_without_being_trusted(tmp_path):
    train("averaged", tmp_path, epochs=1, checkpoint={})
    state = state_of(tmp_path, "last.ckpt")
    assert STATES | {"current_model_state", "averaging_state"} <= state.keys()
    assert any(name.startswith("_memory.buffer") for name in state["state_dict"])
    run = state["loops"]["fit_loop"]["state_dict"]["run"]
    assert run["ranks"][0].keys() == {"generators", "order", "figures", "gradients"}
    assert state["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]["sampler"]["epoch"] == 1


@pytest.mark.contract("002-18", "design-7", "wall_e-7")
@pytest.mark.parametrize("kind", ["cached accumulation", "plain"])
def test_002_18_a_run_goes_on_in_the_middle_of_the_epoch_that_it_was_left_in(kind, tmp_path):
    whole = train(kind, tmp_path / "whole")
    every_step = {"step_interval": 1, "last": None}
    assert_equal(whole, train(kind, tmp_path / "left", checkpoint=every_step))
    for file in sorted(checkpoint_files(tmp_path / "left"), key=lambda one: one.name)[1:8:3]:
        epoch, steps = torch.load(file, weights_only=True)["epoch"], file.stem.split("step=")[1]
        lines = Lines()
        model, _ = train(kind, tmp_path / steps, checkpoint={}, lines=lines, resume_from=str(file))
        assert_equal(whole, (model, {**whole[1], **lines.figures}))
        assert min(value for (name, _), value in lines.figures.items() if name == "epoch") <= epoch + 1


class Count(BaseCallBack):
    """Counts the epochs of all runs that it has been in."""

    count = 0

    def after_running_epoch(self):
        self.count += 1

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state_dict):
        self.count = state_dict["count"]


@pytest.mark.contract("002-18", "design-7")
def test_002_18_the_runners_own_callbacks_have_their_states_back(tmp_path):
    train("cached", tmp_path, epochs=2, checkpoint={}, callbacks=[Count()])
    counts = Count(), Count()
    train("cached", tmp_path, epochs=5, checkpoint={}, callbacks=counts, resume_from="auto")
    assert [one.count for one in counts] == [5, 3]


@pytest.mark.contract("002-18")
def test_002_18_resuming_a_run_that_is_over_changes_nothing(tmp_path):
    whole = train("averaged", tmp_path, checkpoint={})
    lines = Lines()
    model, _ = train("averaged", tmp_path, checkpoint={}, lines=lines, resume_from="auto")
    assert_equal((whole[0], {}), (model, lines.figures))


@pytest.mark.contract("wall_e-8", "wall_e-28")
def test_wall_e_8_without_an_interval_nothing_is_saved_by_step_and_each_file_has_a_name(tmp_path):
    train("cached", tmp_path, epochs=2, checkpoint={"step_interval": None, "last": None})
    names = {file.name for file in (tmp_path / "checkpoints").iterdir()}
    assert names == {"epoch=1-step=10.ckpt", "epoch=2-step=20.ckpt", "last.ckpt", "best.ckpt"}


@pytest.mark.contract("wall_e-24")
def test_wall_e_24_nothing_is_saved_before_a_run_goes_on(tmp_path):
    train("cached", tmp_path, epochs=1, checkpoint={"topk": 0, "last": 1})
    before = (tmp_path / "checkpoints" / "last.ckpt").read_bytes()
    with pytest.raises(RuntimeError, match="at once"):
        train("cached", tmp_path, epochs=2, checkpoint={}, callbacks=[AtOnce()], resume_from="auto")
    assert (tmp_path / "checkpoints" / "last.ckpt").read_bytes() == before


class AtOnce(Callback):
    """Breaks training off before its first batch."""

    def on_train_start(self, trainer, module):
        raise RuntimeError("at once")


@pytest.mark.contract("002-13")
def test_002_13_training_begins_with_the_weights_of_a_file_and_names_what_does_not_fit(tmp_path, caplog):
    given = ToyModel().state_dict()
    missing = sorted(given)[0]
    other = {name: torch.full_like(value, 0.5) for name, value in given.items() if name != missing}
    torch.save({"model": {**other, "strange": torch.ones(1)}}, tmp_path / "weights.pt")
    model = ToyModel()
    with caplog.at_level(logging.WARNING):
        Runner(model, 1, loader(2), cfg={"training": {"load_from": str(tmp_path / "weights.pt")}})
    assert all(torch.equal(value, other[name]) for name, value in model.state_dict().items() if name != missing)
    assert f"(training.load_from) has no weights for {missing}: they begin as they are" in caplog.text
    assert "1 names are not in the model: 'strange'" in caplog.text


@pytest.mark.contract("002-13")
def test_002_13_weights_that_cannot_be_had_stop_the_runner_at_construction(tmp_path):
    torch.save({"strange": torch.ones(1)}, tmp_path / "other.pt")
    for file, message in (("none.pt", "there is no checkpoint file"), ("other.pt", "no name in .* matches ToyModel")):
        with pytest.raises(CheckpointError, match=message):
            Runner(ToyModel(), 1, loader(2), cfg={"training": {"load_from": str(tmp_path / file)}})


@pytest.mark.contract("002-18")
def test_002_18_what_is_to_be_resumed_is_looked_for_at_construction(tmp_path):
    cfg = {"run_dir": str(tmp_path), "training": {"resume_from": str(tmp_path / "none.ckpt")}}
    with pytest.raises(CheckpointError, match=r"there is no checkpoint '.*none\.ckpt' to resume from"):
        Runner(ToyModel(), 1, loader(2), cfg=cfg)
