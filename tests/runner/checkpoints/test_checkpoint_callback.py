"""What is saved, when, and what of it is kept."""

import logging

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from simtrain.errors import CheckpointError, ConfigError
from simtrain.runner.checkpoints.checkpoint_callback import CheckpointCallback
from simtrain.runner.checkpoints.monitors import greater_is_better
from simtrain.runner.checkpoints.resume_source import checkpoint_files
from simtrain.runner.checkpoints.saved_checkpoints import SavedCheckpoint, SavedCheckpoints
from tests.runner.exact_runs import KINDS, Runner, assert_equal, torch_seeded, train

STEPS = 10  # an epoch of the runs below


def names(folder):
    return sorted(file.name for file in (folder / "checkpoints").iterdir())


def of_epochs(figures, name):
    """A figure of each validation, in order."""
    return [value for (each, step), value in sorted(figures.items(), key=lambda one: one[0][1]) if each == name]


def losses(figures):
    return of_epochs(figures, "validation_loss")


class Heads(Callback):
    """The head's weights that each validation measured."""

    def __init__(self):
        self.seen = []

    def on_validation_start(self, trainer, module):
        self.seen.append({name: value.clone() for name, value in module.model.head.state_dict().items()})


@pytest.mark.contract("002-15", "wall_e-21")
def test_002_15_the_best_are_kept_by_the_value_of_their_own_weights_and_the_last_is_of_the_last_epoch(tmp_path):
    heads = Heads()
    _, figures = train("cached", tmp_path, epochs=6, checkpoint={"topk": 2, "last": 1}, callbacks=[heads])
    ranked = sorted(range(6), key=losses(figures).__getitem__)
    kept = {f"epoch={epoch + 1}-step={STEPS * (epoch + 1)}.ckpt" for epoch in {*ranked[:2], 5}}
    assert set(names(tmp_path)) == kept | {"last.ckpt", "best.ckpt"}
    for name, epoch in (("best.ckpt", ranked[0]), ("last.ckpt", 5)):
        state = torch.load(tmp_path / "checkpoints" / name, weights_only=True)
        assert state["epoch"] + 1 in (epoch + 1, epoch + 2)
        for part, value in heads.seen[epoch].items():
            assert torch.equal(value, state["state_dict"][f"_model.head.{part}"])


@pytest.mark.contract("002-15", "wall_e-8")
def test_002_15_saves_by_epoch_and_by_step_begin_and_repeat_as_told(tmp_path):
    by_epoch = {"begin_epoch": 2, "epoch_interval": 2, "last": None, "topk": 0}
    train("cached", tmp_path / "epoch", epochs=5, checkpoint=by_epoch)
    epochs = ["epoch=2-step=20.ckpt", "epoch=4-step=40.ckpt", "epoch=5-step=50.ckpt"]
    assert names(tmp_path / "epoch") == [*epochs, "last.ckpt"]
    by_step = {"begin_step": 4, "step_interval": 9, "epoch_interval": None, "last": None, "topk": 0}
    for loop in ("cached", "trainer"):
        train("cached", tmp_path / loop, epochs=3, checkpoint=by_step, loop=loop)
        steps = [int(name.split("step=")[1][:-5]) for name in names(tmp_path / loop) if "step" in name]
        assert sorted(steps) == [4, 13, 22, 30]


def test_steps_are_counted_with_accumulation_and_where_a_step_ends_an_epoch(tmp_path):
    by_step = {"step_interval": 2, "epoch_interval": None, "last": None, "topk": 0}
    for kind in ("accumulation", "cached accumulation", "updating"):
        train(kind, tmp_path / kind, epochs=2, checkpoint=by_step)  # four steps an epoch, the last one of one batch
        assert [name for name in names(tmp_path / kind) if "step" in name] == [
            "epoch=0-step=2.ckpt",
            "epoch=1-step=4.ckpt",
            "epoch=1-step=6.ckpt",
            "epoch=2-step=8.ckpt",
        ]


def test_fast_steps_are_taken_between_saves(tmp_path, monkeypatch):
    from simtrain.runner.lean_step import LeanStep

    taken, run = [], LeanStep.run
    monkeypatch.setattr(LeanStep, "run", lambda self, fetcher, count: (taken.append(count), run(self, fetcher, count)))
    train("cached", tmp_path, epochs=1, checkpoint={"step_interval": 4})
    assert taken == [3, 4, 1]  # the first and the last batch are Lightning's own


def test_two_figures_each_keep_their_best_by_their_own_direction(tmp_path):
    monitor = {"validation_loss": None, "p_validation": True}
    _, figures = train("cached", tmp_path, epochs=4, checkpoint={"monitor": monitor, "topk": 1, "last": 1})
    precision = of_epochs(figures, "p_validation")
    best = {losses(figures).index(min(losses(figures))), precision.index(max(precision)), 3}
    expected = {f"epoch={epoch + 1}-step={10 * (epoch + 1)}.ckpt" for epoch in best}
    assert {name for name in names(tmp_path) if "step" in name} == expected


def test_a_figure_of_training_can_be_monitored(tmp_path):
    train("cached", tmp_path, epochs=3, checkpoint={"monitor": {"p_train": True}, "topk": 1, "last": None})
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    saved = next(value for name, value in state["callbacks"].items() if "CheckpointCallback" in name)["saved"]
    assert all(0 <= one["scores"]["p_train"] <= 1 for one in saved)


def test_what_is_kept_is_remembered_by_a_resumed_run(tmp_path):
    settings = {"topk": 1, "last": 1, "step_interval": 5}
    train("cached", tmp_path / "whole", epochs=5, checkpoint=settings)
    train("cached", tmp_path / "left", epochs=5, checkpoint=settings, callbacks=[Break(33)], expect=Left)
    train("cached", tmp_path / "left", epochs=5, checkpoint=settings, resume_from="auto")
    # What was saved where it broke off has gone with the end of the run.
    assert set(names(tmp_path / "left")) == set(names(tmp_path / "whole"))


class Left(Exception):
    """Breaks a run off."""


class Break(Callback):
    """Breaks the run off in a step."""

    def __init__(self, step, error=Left):
        self.step, self.error = step, error

    def on_before_backward(self, trainer, module, loss):
        if trainer.global_step == self.step:
            raise self.error("in the middle")


@pytest.mark.contract("002-15", "wall_e-24")
def test_002_15_an_exception_is_saved_and_comes_out_as_it_is(tmp_path, caplog):
    with caplog.at_level(logging.ERROR, logger="simtrain"):
        train("cached", tmp_path, checkpoint={}, callbacks=[Break(14)], expect=Left)
    assert "Left broke the run off; its state is in" in caplog.text
    state = torch.load(tmp_path / "checkpoints" / "exception-Left.ckpt", weights_only=True)
    assert state["global_step"] == 14
    # What was saved in the middle of a step is not what auto goes on from.
    assert [file.name for file in checkpoint_files(tmp_path)] == ["epoch=1-step=10.ckpt"]


@pytest.mark.contract("002-15", "wall_e-24")
def test_002_15_a_save_that_fails_does_not_hide_the_exception(tmp_path, caplog):
    class Broken(Break):
        def state_dict(self):
            raise RuntimeError("no state")

    with caplog.at_level(logging.ERROR, logger="simtrain"):
        train("cached", tmp_path, checkpoint={}, callbacks=[Broken(4)], expect=Left)
    assert "Left broke the run off, and its state could not be saved" in caplog.text


def test_an_exception_before_training_saves_nothing(tmp_path):
    class Early(Callback):
        def setup(self, trainer, module, stage):
            raise Left

    train("cached", tmp_path, checkpoint={}, callbacks=[Early()], expect=Left)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_an_interrupt_in_validation_leaves_averaged_weights_where_they_belong(tmp_path):
    class InValidation(Callback):
        def on_validation_batch_start(self, trainer, module, batch, batch_idx):
            raise KeyboardInterrupt

    train("averaged", tmp_path, epochs=1, checkpoint={}, callbacks=[InValidation()], expect=KeyboardInterrupt)
    state = torch.load(tmp_path / "checkpoints" / "exception-KeyboardInterrupt.ckpt", weights_only=True)
    whole, _ = train("averaged", tmp_path / "whole", epochs=1)
    for name, value in whole.model.head.state_dict().items():
        assert torch.equal(state["state_dict"][f"_model.head.{name}"], value)


def test_a_checkpoint_that_could_not_be_loaded_stops_the_run_at_once(tmp_path):
    class Odd(Callback):
        def state_dict(self):
            return {"what": Left()}

    with pytest.raises(CheckpointError, match=r"this run's checkpoints could not be loaded again.*tensors and plain"):
        train("cached", tmp_path, checkpoint={}, callbacks=[Odd()])


def test_the_best_weights_can_be_loaded_back(tmp_path):
    heads = Heads()
    model, figures = train("cached", tmp_path, epochs=5, checkpoint={"load_best": True}, callbacks=[heads])
    best = losses(figures).index(min(losses(figures)))
    for name, value in heads.seen[best].items():
        assert torch.equal(model.model.head.state_dict()[name], value)


def test_where_nothing_was_saved_there_is_no_best(tmp_path):
    make, loader, _, _ = KINDS["cached"]
    torch_seeded()
    runner = Runner(make(), 1, loader(), cfg={"training": {"device": "cpu"}})
    with pytest.raises(CheckpointError, match=r"there is no best checkpoint: set checkpoint\.enable"):
        runner.load_best()
    with pytest.raises(ConfigError, match=r"checkpoint\.load_best needs checkpoints"):
        Runner(make(), 1, loader(), cfg={"checkpoint": {"load_best": True, "enable": False}})


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"topk": -1}, r"topk of the checkpoints should be at least 0, got -1"),
        ({"step_interval": 0}, r"step_interval of the checkpoints should be at least 1, got 0"),
        ({"monitor": ["a", "b"]}, r"checkpoint.monitor should be a figure, or figures with .*, got \['a', 'b'\]"),
        ({"monitor": 3}, r"checkpoint.monitor should be a figure, or figures with their directions .*, got 3"),
        ({"monitor": "brightness"}, r"the name 'brightness' does not tell whether more is better; say it"),
    ],
)
def test_wrong_settings_are_told_at_once(words, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        CheckpointCallback(tmp_path, **words)


def test_a_figure_that_is_not_logged_is_named_with_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match=r"checkpoint.monitor 'validation_los.' is not logged.*validation_loss"):
        train("cached", tmp_path, epochs=1, checkpoint={"monitor": {"validation_losx": False}})


def test_a_run_without_validation_keeps_its_newest(tmp_path):
    train("plain workers", tmp_path, epochs=4, checkpoint={})
    assert names(tmp_path) == ["epoch=3-step=30.ckpt", "epoch=4-step=40.ckpt", "last.ckpt"]


@pytest.mark.parametrize(
    ("name", "greater"),
    [
        ("loss", False),
        ("validation_loss", False),
        ("mrr_validation", True),
        ("precision@1_validation", True),
        ("hit_rate@10", True),
        ("fnmr", False),
        ("val/acc", True),
        ("map@r", True),
    ],
)
def test_the_direction_of_a_figure_is_told_by_its_name(name, greater):
    assert greater_is_better(name) is greater


def test_no_value_is_worse_than_any():
    saved = SavedCheckpoints({"mrr": True}, topk=1, last=1)
    assert not saved.wants({"mrr": float("nan")})
    for step, mrr in enumerate([float("nan"), 0.1, float("nan")]):
        saved.add(SavedCheckpoint(f"{step}.ckpt", 0, step, {"mrr": mrr}))
    assert saved.best("mrr").file == "1.ckpt"


def test_saving_changes_nothing(tmp_path):
    assert_equal(train("averaged", tmp_path), train("averaged", tmp_path, checkpoint={"step_interval": 1}))
