"""When the runner validates, tests and ends: by epochs, batches, steps and time."""

import re
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import timer
from torch.utils.data import DataLoader

from simtrain import BaseCallBack, Runner
from simtrain.errors import ConfigError
from simtrain.runner import TestLoop, ValidLoop
from tests.contract.runner_parts import Modes, loader
from tests.contract.seed_models import ToyModel, toy_batches


class Places(BaseCallBack):
    """After which batches, counted over all epochs, there was a validation or a test."""

    def __init__(self):
        self.valid, self.test = [], []

    def after_valid(self):
        self.valid.append(self.runner.state.current_iteration)

    def after_test(self):
        self.test.append(self.runner.state.current_iteration)


def places(epochs, batches, stop=None, **training):
    watch = Places()
    extra = [] if stop is None else [stop]
    runner = Runner(
        ToyModel(), epochs, loader(batches), loader(1), loader(1), cfg={"training": training}, callbacks=[watch, *extra]
    )
    runner.fit()
    return watch


def due(counts, begin, interval):
    return {count for count in counts if interval and count >= begin and (count - begin) % interval == 0}


@pytest.mark.contract("002-9", "ruling-9")
@settings(max_examples=12)
@given(
    epochs=st.integers(1, 6),
    batches=st.integers(1, 5),
    begin_epoch=st.integers(1, 7),
    interval_epoch=st.none() | st.integers(1, 4),
    begin_iter=st.integers(1, 12),
    interval_iter=st.none() | st.integers(1, 7),
)
def test_002_9_both_triggers_are_active_each_from_its_begin(epochs, batches, **triggers):
    begin_epoch, interval_epoch = triggers["begin_epoch"], triggers["interval_epoch"]
    ends = {epoch * batches for epoch in due(range(1, epochs + 1), begin_epoch, interval_epoch)}
    by_batch = due(range(1, epochs * batches + 1), triggers["begin_iter"], triggers["interval_iter"])
    expected = sorted(ends | by_batch)
    words = {f"{stage}_{word}": value for word, value in triggers.items() for stage in ("valid", "test")}
    watch = places(epochs, batches, **words)
    # Two reasons for one batch make one validation, and the last epoch always has one.
    assert watch.valid == sorted({*expected, epochs * batches})
    assert watch.test == expected


@pytest.mark.contract("ruling-9")
def test_ruling_9_by_default_each_epoch_is_validated_and_nothing_is_tested():
    watch = places(3, 2)
    assert (watch.valid, watch.test) == ([2, 4, 6], [])
    training = Runner(ToyModel(), 1).cfg.training
    words = ("begin_epoch", "interval_epoch", "begin_iter", "interval_iter")
    assert [training[f"valid_{word}"] for word in words] == [1, 1, 4000, 1000]


@pytest.mark.contract("ruling-9", "002-9")
def test_ruling_9_the_last_batch_validates_however_training_ends():
    class Stop(BaseCallBack):
        def __init__(self, hook, count):
            self.count = count
            setattr(self, hook, self.stop)

        def stop(self):
            if self.runner.state.current_iteration == self.count:
                self.runner.state.stop_training = True

    class AfterBatch(Stop):
        def after_running_batch(self):
            self.stop()

    class AfterEpoch(Stop):
        def after_running_epoch(self):
            self.stop()

    never = {"valid_interval_epoch": None, "valid_interval_iter": None}
    assert places(3, 4, **never).valid == [12]
    assert places(3, 4, max_steps=6, **never).valid == [6]
    assert places(3, 4, max_steps=3, gradient_accumulation=3, **never).valid == [7]
    assert places(3, 4, max_steps=8).valid == [4, 8]
    assert places(3, 4, AfterBatch("x", 5), **never).valid == [5]
    assert places(3, 4, AfterEpoch("x", 4), **never).valid == [4]
    assert places(3, 4, AfterEpoch("x", 8)).valid == [4, 8]


@pytest.mark.contract("002-9")
def test_002_9_streams_and_models_that_update_themselves_are_validated_at_the_same_batches():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(toy_batches(5))

    class Manual(ToyModel):
        def train_step(self, batch, optim_wrapper):
            optim_wrapper.update_params(self.compute_loss(**batch)["loss"])
            optim_wrapper.update_params(self.compute_loss(**batch)["loss"])
            return {}

    for kind, most in ((ToyModel, 8), (Manual, 16)):
        watch = Places()
        training = {"valid_begin_iter": 2, "valid_interval_iter": 4, "max_steps": most}
        data = DataLoader(Stream(), batch_size=None)
        Runner(kind(), 3, data, loader(1), cfg={"training": training}, callbacks=[watch]).fit()
        assert watch.valid == [2, 5, 6, 8]


@pytest.mark.contract("002-9")
@pytest.mark.parametrize("stage", ["valid", "test"])
def test_002_9_a_loop_of_ones_own_is_run_where_it_is_due(stage):
    class Mine:
        def __init__(self):
            self.seen = []

        def run(self):
            self.seen.append((self.runner.state.current_iteration, self.runner.model.training, torch.is_grad_enabled()))
            return {"mine": float(len(self.seen))}

    class Derived(ValidLoop if stage == "valid" else TestLoop):
        seen = []  # noqa: RUF012

        def run(self):
            figures = super().run()
            self.seen.append((self.runner.state.current_iteration, self.runner.model.training, torch.is_grad_enabled()))
            return {"mine": figures[f"{self.named}_loss"] * 0 + len(self.seen)}

    class Look(BaseCallBack):
        figures = []  # noqa: RUF012

        def after_running_epoch(self):
            self.figures.append(float(self.runner.state.trainer.callback_metrics["mine"]))

    for mine in (Mine(), Derived()):
        model, Look.figures = Modes(), []
        words = {f"{stage}_data_loader": loader(1), f"{stage}_loop": mine}
        training = {f"{stage}_begin_iter": 1, f"{stage}_interval_iter": 2, f"{stage}_interval_epoch": 1}
        Runner(model, 2, loader(2), cfg={"training": training}, callbacks=[Look()], **words).fit()
        assert mine.seen == [(count, False, False) for count in (1, 2, 3, 4)]
        assert Look.figures == [2.0, 4.0]
        assert [mode for step, mode, _ in model.seen if step == "train"] == [True] * 4
        # And nobody else runs it: of a derived loop, Lightning's has the loader.
        assert len([step for step, *_ in model.seen if step != "train"]) == 4 * isinstance(mine, Derived)


@pytest.mark.contract("wall_e-5")
@pytest.mark.parametrize("stage", ["valid", "test"])
def test_wall_e_5_training_goes_on_in_train_mode_after_an_evaluation_in_the_middle(stage):
    model = Modes()
    training = {f"{stage}_begin_iter": 2, f"{stage}_interval_iter": 100, "valid_interval_epoch": None}
    Runner(model, 1, loader(4), loader(1), loader(1), cfg={"training": training}).fit()
    steps = [step for step, *_ in model.seen]
    assert steps == ["train", "train", "valid", "train", "train", "valid"]
    assert all(mode == (step == "train") for step, mode, _ in model.seen)
    assert not any(frozen for *_, frozen in model.seen)  # what was in eval mode before is again


@pytest.mark.contract("ruling-9")
@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"valid_begin_epoch": 0}, "training.valid_begin_epoch should be at least 1, got 0"),
        ({"valid_interval_epoch": 0}, "training.valid_interval_epoch should be at least 1, got 0"),
        ({"valid_begin_iter": 0}, "training.valid_begin_iter should be at least 1, got 0"),
        ({"test_interval_iter": -1}, "training.test_interval_iter should be at least 1, got -1"),
        ({"max_steps": 0}, "training.max_steps should be at least 1, got 0"),
        (
            {"max_time": "12h"},
            "training.max_time is written 'DD:HH:MM:SS', in quotes and longer than no time, such as '00:12:00:00', "
            "got '12h'",
        ),
        (
            {"max_time": "00:00:00:00"},
            "training.max_time is written 'DD:HH:MM:SS', in quotes and longer than no time, such as '00:12:00:00', "
            "got '00:00:00:00'",
        ),
    ],
)
def test_ruling_9_limits_of_the_triggers_are_told_at_construction(training, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        Runner(ToyModel(), 1, loader(), cfg={"training": training})


@pytest.mark.contract("002-9")
def test_002_9_max_time_ends_training(monkeypatch):
    now = 0.0
    monkeypatch.setattr(timer, "time", SimpleNamespace(monotonic=lambda: now))

    class Slow(ToyModel):
        def train_step(self, batch):
            nonlocal now
            now += 0.4
            return super().train_step(batch)

    watch = Places()
    cfg = {"training": {"max_time": "00:00:00:01", "valid_interval_epoch": None}}
    Runner(Slow(), 3, loader(8), loader(1), cfg=cfg, callbacks=[watch]).fit()
    assert watch.valid == [3]
