"""A run that goes on from a checkpoint ends with the bits of one that was never left."""

import logging

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping

from simtrain import Runner
from simtrain.errors import CheckpointError
from tests.runner.exact_runs import CPU, KINDS, Lines, assert_equal, make_loader, make_model, train

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*batch-norm layers.*"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`.*"),
]
EPOCHS, BATCHES = 3, 10


class SaveEverywhere(Callback):
    """A file at each place, by its number."""

    def __init__(self, folder):
        self.folder, self.places = folder, []

    def on_place(self, trainer, module, place):
        trainer.save_checkpoint(self.file(len(self.places)), weights_only=False)
        self.places.append(place)

    def file(self, number):
        return self.folder / f"{number}.ckpt"


def go_on_from(kind, folder, numbers):
    """A run that is saved at each place, and runs that go on from some of them, each saved again."""
    whole = train(kind, folder)
    saving = SaveEverywhere(folder / "first")
    assert_equal(whole, train(kind, folder, callbacks=[saving]))
    batches = saving.places.index("epoch")
    assert saving.places == [*["batch"] * batches, "epoch"] * EPOCHS
    for number in (one % len(saving.places) for one in numbers):
        lines, again = Lines(), SaveEverywhere(folder / f"from {number}")
        model, _ = train(kind, folder, callbacks=[again], lines=lines, resume_from=str(saving.file(number)))
        assert_equal(whole, (model, {**whole[1], **lines.figures}))
        state = torch.load(saving.file(number), weights_only=True)
        logged = state["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"]
        assert {name for name in whole[1] if name[1] > logged} <= lines.figures.keys()
        assert again.places == saving.places[number + 1 :]
    return saving


@pytest.mark.parametrize("kind", KINDS)
def test_design_7_a_run_goes_on_exactly_from_the_middle_and_the_end_of_an_epoch(kind, tmp_path):
    # In the middle of an accumulation window, before and after a validation, at the end.
    go_on_from(kind, tmp_path, [3, BATCHES - 1, 17, -1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_exactly_from_every_place(kind, tmp_path):
    go_on_from(kind, tmp_path, range(EPOCHS * (8 if kind == "hard classes" else BATCHES)))


class Left(Exception):
    """Breaks a run off."""


class LeaveAfter(Callback):
    """Breaks the run off in the step after so many places."""

    def __init__(self, count, saving):
        self.count, self.saving = count, saving

    def on_before_backward(self, trainer, module, loss):
        if len(self.saving.places) >= self.count:
            raise Left


def test_a_run_may_be_left_again_and_again(tmp_path):
    whole, lines, path, times = train("plain", tmp_path), Lines(), None, 0
    while True:
        saving = SaveEverywhere(tmp_path / str(times))
        try:
            model, _ = train(
                "plain", tmp_path, callbacks=[saving, LeaveAfter(7, saving)], lines=lines, resume_from=path
            )
            break
        except Left:
            path, times = str(saving.file(6)), times + 1
    assert times == EPOCHS * BATCHES // 7
    assert_equal(whole, (model, lines.figures))


def test_early_stopping_is_remembered(tmp_path):
    def run(**words):
        stop = EarlyStopping("validation_loss", min_delta=10.0, patience=1)
        saving = SaveEverywhere(tmp_path / f"{len(words)}")
        return train("cached", tmp_path, epochs=9, callbacks=[stop, saving], **words), saving

    whole, saving = run()
    assert saving.places.count("epoch") == 2
    resumed, more = run(resume_from=str(saving.file(len(saving.places) - 1)))
    assert more.places == []
    assert_equal((whole[0], {}), (resumed[0], {}))


def test_a_checkpoint_can_be_read_without_trusting_it(tmp_path):
    saving = go_on_from("updating", tmp_path, [])
    state = torch.load(saving.file(4), weights_only=True)
    assert {"state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "optim_wrappers"} <= state.keys()
    run = state["loops"]["fit_loop"]["state_dict"]["run"]
    assert run["place"] == "batch"
    assert run["ranks"][0]["generators"]["global"].keys() == {"torch", "device", "numpy", "python"}


def test_lightnings_own_checkpoints_are_resumed_as_before(tmp_path):
    saving = lightning.pytorch.callbacks.ModelCheckpoint(
        tmp_path / "own", "{step}", every_n_train_steps=4, save_top_k=-1
    )
    whole = train("hard classes", tmp_path, callbacks=[saving])
    assert (
        "run" not in torch.load(tmp_path / "own" / "step=4.ckpt", weights_only=True)["loops"]["fit_loop"]["state_dict"]
    )
    resumed = train("hard classes", tmp_path, resume_from=str(tmp_path / "own" / "step=4.ckpt"))
    assert resumed[0].state_dict().keys() == whole[0].state_dict().keys()


def test_nothing_is_resumed_from_what_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no checkpoint '.*none\.ckpt' to resume from"):
        train("cached", tmp_path, resume_from=str(tmp_path / "none.ckpt"))
    with pytest.raises(CheckpointError, match=r"there is no run to resume in .*: it has no folder 'checkpoints'"):
        train("cached", tmp_path, resume_from="auto")


def test_a_file_of_weights_alone_is_no_run(tmp_path):
    torch.save(make_model().state_dict(), tmp_path / "weights.ckpt")
    with pytest.raises(CheckpointError, match=r"holds no run that could be resumed.*set training\.load_from"):
        train("cached", tmp_path, resume_from=str(tmp_path / "weights.ckpt"))


def test_a_checkpoint_of_another_model_or_of_other_parameters_is_refused_in_a_sentence(tmp_path):
    train("cached", tmp_path, epochs=1, checkpoint={})
    with pytest.raises(CheckpointError, match=r"cannot resume: .*last\.ckpt is of a run of another model.*Missing key"):
        train("plain", tmp_path, resume_from=str(tmp_path / "checkpoints" / "last.ckpt"))
    cfg = {"run_dir": str(tmp_path), "training": {"device": "cpu", "resume_from": "auto"}}
    cfg["optimizer"] = {"type": "AdamW", "parameter_groups": [{"pattern": "bias", "weight_decay": 0.0}]}
    model = make_model(CPU)
    model.make_optimizer = None  # the config's
    with pytest.raises(
        CheckpointError, match=r"or one that trained other parameters \(loaded state dict has a different"
    ):
        Runner(model, 2, make_loader(), cfg=cfg).fit()


def test_auto_begins_anew_where_a_run_was_left_before_its_first_checkpoint(tmp_path, caplog):
    (tmp_path / "checkpoints").mkdir()
    with caplog.at_level(logging.WARNING, logger="simtrain"):
        resumed = train("cached", tmp_path, resume_from="auto")
    assert "was left before its first checkpoint: it begins anew" in caplog.text
    assert_equal(train("cached", tmp_path), resumed)


def test_other_loaders_are_named(tmp_path):
    saving = SaveEverywhere(tmp_path)
    train("cached", tmp_path, epochs=1, callbacks=[saving])
    cfg = {"run_dir": str(tmp_path), "training": {"device": "cpu", "resume_from": str(saving.file(2))}}
    with pytest.raises(CheckpointError, match="make the loader as it was made then"):
        Runner(make_model(), 3, make_loader(shuffle=False), cfg=cfg).fit()


def test_a_checkpoint_of_another_optimizer_is_refused_in_a_sentence(tmp_path):
    cfg = {"run_dir": str(tmp_path), "optimizer": {"type": "AdamW"}, "training": {"device": "cpu"}}
    for epochs, kind in ((1, "AdamW"), (2, "SGD")):
        cfg["optimizer"] = {"type": kind, "lr": 0.1}
        make, loader, _, _ = KINDS["plain"]
        runner = Runner(make(), epochs, loader(), cfg=cfg)
        if kind == "AdamW":
            runner.fit()
        cfg["training"]["resume_from"] = "auto"
    with pytest.raises(CheckpointError, match=r"another optimizer than SGD \(it holds no dampening, momentum\)"):
        runner.fit()


def test_a_checkpoint_of_more_epochs_than_the_run_has_is_refused_in_a_sentence(tmp_path):
    train("cached", tmp_path, epochs=2, checkpoint={})
    with pytest.raises(
        CheckpointError,
        match=r"cannot resume: .*epoch=2.* is of a run that has done 2 epochs, and training.epochs is 1; set it to at "
        r"least 2, or leave out training.resume_from",
    ):
        train("cached", tmp_path, epochs=1, resume_from="auto")


def test_a_run_that_goes_on_with_another_config_says_so(tmp_path, caplog):
    cfg = {"run_dir": str(tmp_path), "optimizer": {"type": "AdamW", "lr": 0.1}, "training": {"device": "cpu"}}
    make, loader, _, _ = KINDS["plain"]
    with caplog.at_level(logging.WARNING, logger="simtrain"):
        Runner(make(), 1, loader(), cfg=cfg).fit()
        cfg["training"]["resume_from"] = "auto"
        Runner(make(), 2, loader(), cfg={**cfg, "log": {"csv": True}}).fit()
        assert "another config" not in caplog.text
        cfg["optimizer"] = {"type": "AdamW", "lr": 0.2}
        Runner(make(), 3, loader(), cfg={**cfg, "xbm": {}}).fit()
    assert (
        "goes on with another config than it was left with: optimizer.lr 0.1 -> 0.2, xbm None -> {}; the" in caplog.text
    )
