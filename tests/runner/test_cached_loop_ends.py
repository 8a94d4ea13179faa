"""CachedTrainLoop validates, stops, breaks off and goes on where TrainLoop does."""

import warnings
from functools import partial

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, Timer
from lightning.pytorch.loggers import CSVLogger

from simtrain import XbmConfig
from simtrain.errors import DataError
from simtrain.losses import SupConLoss
from tests.runner.loop_twins import CPU, LOADERS, RecordBatches, assert_same, groups, loader_of, run, schedule, slow
from tests.training.models import group_model


class Stop(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        trainer.should_stop = trainer.global_step >= self.step


def with_trainer_options(monkeypatch, **more):
    original = lightning.Trainer

    def make(**options):
        return original(**{**options, **more})

    monkeypatch.setattr(lightning, "Trainer", make)


@pytest.mark.parametrize(
    "more",
    [
        {"max_steps": 7},
        slow({"max_steps": 11}),
        slow({"max_steps": 16, "accumulate_grad_batches": 1}),
        {"limit_train_batches": 5},
        slow({"max_time": "00:00:10:00"}),
        {"fast_dev_run": False, "overfit_batches": 4},
    ],
    ids=str,
)
def test_options_of_the_trainer(monkeypatch, more):
    with_trainer_options(monkeypatch, **more)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same(groups(), LOADERS["shuffled"], valid=partial(loader_of, "groups", batch_size=11), epochs=3)


@pytest.mark.parametrize(
    "training",
    [
        {"valid_begin_iter": 3, "valid_interval_iter": 3},
        {"valid_begin_iter": 4, "valid_interval_iter": 5, "valid_interval_epoch": None},
        slow({"valid_begin_epoch": 2, "valid_interval_epoch": 2, "max_steps": 15}),
        slow({"valid_begin_iter": 1, "valid_interval_iter": 1}),
    ],
    ids=str,
)
def test_validation_by_epochs_and_batches(training):
    valid = partial(loader_of, "groups", batch_size=11)
    # Where each batch is validated, there is no lean step to take.
    lean = training.get("valid_interval_iter") != 1
    assert_same(groups(), LOADERS["shuffled"], lean=lean, valid=valid, epochs=3, training=training)


def test_stopping_in_the_middle_of_an_epoch():
    stopped = {}
    for loop in ("trainer", "cached"):
        record = RecordBatches()
        valid = partial(loader_of, "groups")
        model = run(loop, groups(), LOADERS["shuffled"], callbacks=[Stop(5), record], valid=valid, epochs=3)
        stopped[loop] = (record.seen, [p.tolist() for p in model.model.head.parameters()])
    assert stopped["trainer"] == stopped["cached"]
    assert [seen[0] for seen in stopped["cached"][0]].count("batch end") == 5


def test_early_stopping_and_timer():
    assert_same_with(lambda: [EarlyStopping("validation_loss", patience=1, min_delta=10.0)])
    assert_same_with(lambda: [Timer(duration={"hours": 1})])


def assert_same_with(callbacks):
    weights = []
    for loop in ("trainer", "cached"):
        model = run(
            loop, groups(), LOADERS["shuffled"], callbacks=callbacks(), valid=partial(loader_of, "groups"), epochs=5
        )
        weights.append([p.tolist() for p in model.model.head.parameters()])
    assert weights[0] == weights[1]


@pytest.mark.parametrize("every", [1, 4])
def test_loggers_get_the_same_lines(tmp_path, monkeypatch, every):
    with_trainer_options(monkeypatch, log_every_n_steps=every)
    lines = []
    for loop in ("trainer", "cached"):
        logs = CSVLogger(tmp_path / loop, name="run", version=0)
        run(
            loop,
            groups(),
            LOADERS["shuffled"],
            valid=partial(loader_of, "groups", batch_size=11),
            logger=logs,
            training={"grad_clip": 0.1},
        )
        lines.append((tmp_path / loop / "run" / "version_0" / "metrics.csv").read_text())
    assert lines[0] == lines[1]
    assert lines[0].count("\n") > 22 // every


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # on purpose
@pytest.mark.parametrize(("steps", "workers"), [(4, 0), slow(15, 2), slow(4, 2), slow(11, 0), slow(11, 2), slow(15, 0)])
def test_a_run_resumed_from_the_middle_of_an_epoch_ends_with_the_same_weights(tmp_path, monkeypatch, workers, steps):
    make_loader = partial(loader_of, "groups", shuffle=True, num_workers=workers)
    make_model = groups(scheduler=schedule, xbm=XbmConfig(buffer_size=30, start_iteration=2))
    whole = run("trainer", make_model, make_loader, epochs=3)
    for loop in ("trainer", "cached"):
        saving = ModelCheckpoint(tmp_path / loop, filename="{step}", every_n_train_steps=steps, save_top_k=-1)
        assert_equal(whole, run(loop, make_model, make_loader, epochs=3, callbacks=[saving]))
    saved = [torch.load(tmp_path / loop / f"step={steps}.ckpt", weights_only=True) for loop in ("trainer", "cached")]
    assert saved[0]["loops"] == saved[1]["loops"]
    assert saved[0]["lr_schedulers"] == saved[1]["lr_schedulers"]
    fit = lightning.Trainer.fit
    path = str(tmp_path / "cached" / f"step={steps}.ckpt")
    monkeypatch.setattr(lightning.Trainer, "fit", lambda *args: fit(*args, ckpt_path=path))
    for loop in ("trainer", "cached"):
        saving = ModelCheckpoint(tmp_path / "cached", filename="{step}", every_n_train_steps=steps, save_top_k=-1)
        assert_equal(whole, run(loop, make_model, make_loader, epochs=3, callbacks=[saving]))


def assert_equal(one, two):
    for name, value in one.state_dict().items():
        other = two.state_dict()[name]
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_what_breaks_a_run_off_leaves_the_same_behind(kind):
    class Break(RecordBatches):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            if trainer.global_step == 5:
                raise kind("now")

        def on_exception(self, trainer, module, exception):
            self.note("exception", trainer, type(exception))

    left = []
    for loop in ("trainer", "cached"):
        record = Break()
        with pytest.raises((kind, SystemExit)) as caught:
            run(loop, groups(), LOADERS["shuffled"], callbacks=[record])
        left.append((record.seen, caught.type))
    assert left[0] == left[1]
    assert left[0][0][-1][0] == "exception"


def test_a_loss_that_is_not_finite_is_refused_before_it_spoils_the_weights():
    class Spoiling(SupConLoss):
        calls = 0

        def forward(self, embeddings, groups):
            self.calls += 1
            return super().forward(embeddings, groups) * (float("nan") if self.calls == 6 else 1.0)

    weights = []
    for loop in ("trainer", "cached"):
        model = group_model(cache=CPU, loss=Spoiling())
        with pytest.raises(DataError, match=r"the loss of .*train_step is nan; no weight was changed"):
            run(loop, lambda model=model: model, LOADERS["in order"], training={"nonfinite_limit": None})
        weights.append([p.tolist() for p in model.model.head.parameters()])
        assert model._log_later is None
    assert weights[0] == weights[1]
