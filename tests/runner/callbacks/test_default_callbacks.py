"""What a runner shows and does by itself: progress, the table of epochs, early stopping, monitors, loggers."""

import csv
import io
import logging
import re
import sys

import lightning
import pytest
import torch

from simtrain import BaseCallBack, Runner, load_cfg
from simtrain.errors import ConfigError, MissingExtraError
from simtrain.runner.callbacks import EarlyStop, EpochSummary, StepMonitor, Throughput, run_progress
from simtrain.runner.callbacks.figure_lines import best_row
from simtrain.runner.default_callbacks import default_callbacks
from simtrain.runner.lean_step import HOOKS
from simtrain.runner.monitored_figure import greater_is_better
from tests.contract.runner_parts import loader
from tests.contract.seed_models import ToyModel


def fitted(epochs=3, model=None, callbacks=(), **cfg):
    runner = Runner(model or ToyModel(), epochs, loader(3), loader(2), cfg=cfg, callbacks=callbacks)
    runner.fit()
    return runner


class Figures(ToyModel):
    """Its validation gives figures that are given."""

    def __init__(self, values):
        super().__init__()
        self.values, self.step = values, 0

    def valid_step(self, batch):
        value = self.values[self.step // 2]
        self.step += 1
        return {"score": value}


@pytest.mark.contract("002-15")
def test_002_15_the_default_list_and_what_is_added():
    mine, own = BaseCallBack(), lightning.pytorch.Callback()
    cfg = {"training": {"early_stop": {"patience": 2}}, "callbacks": [{"type": "Throughput"}]}
    runner = Runner(ToyModel(), 1, loader(), cfg=cfg, callbacks=[mine, own])
    names = [type(one).__name__ for one in runner.callbacks]
    assert names == ["_ProgressLines", "EarlyStop", "EpochSummary", "Throughput", "BaseCallBack", "Callback"]
    assert runner.callbacks[-2:] == [mine, own]
    assert Runner(ToyModel(), 1, loader(), cfg={"training": {"progress_bar": False}}).callbacks == []
    bar = lightning.pytorch.callbacks.TQDMProgressBar()
    assert next(type(one).__name__ for one in Runner(ToyModel(), 1, callbacks=[bar]).callbacks) == "EpochSummary"


@pytest.mark.contract("002-15")
def test_002_15_no_default_callback_has_a_hook_of_batches():
    # Such a hook costs the fast loop some of its speed.
    for one in (*Runner(ToyModel(), 1, cfg={"training": {"early_stop": {}}}).callbacks, Throughput()):
        for hook in HOOKS:
            assert getattr(type(one), hook) is getattr(lightning.pytorch.Callback, hook), (type(one), hook)


@pytest.mark.parametrize(
    ("aloud", "every", "epochs"), [(True, 1, [1, 2, 3]), (True, 2, [2, 3]), (None, 1, []), (False, 1, [])]
)
def test_without_a_terminal_progress_is_lines(capsys, caplog, aloud, every, epochs):
    caplog.set_level(logging.INFO, "simtrain")
    training = {"progress_bar": aloud, "progress_every_n_epochs": every}
    fitted(training=training)
    written = capsys.readouterr().err
    assert [int(number) for number in re.findall(r"^epoch (\d+)/3, 0:00:0\d: ", written, re.MULTILINE)] == epochs
    told = "\n".join(record.getMessage() for record in caplog.records if record.name == "simtrain")
    assert ("epoch 3/3, 0:00:0" in told) is (aloud is None)
    if epochs:
        assert re.search(r"train_loss [\d.e-]+, validation_loss [\d.e-]+$", written, re.MULTILINE)


def test_figures_that_are_asked_for_are_shown_in_the_middle_of_an_epoch_too(capsys):
    model = Figures([0.0] * 9)
    training = {"progress_bar": True, "progress_every_n_batches": 2, "progress_show": {"validation_score": True}}
    fitted(1, model, training={**training, "valid_begin_iter": 1, "valid_interval_iter": 1})
    written = capsys.readouterr().err
    # 0.0 is a figure: the source took it for none.
    assert re.search(r"^epoch 1, batch 2, 0:00:0\d: validation_score 0$", written, re.MULTILINE)
    assert re.search(r"^epoch 1/1, 0:00:0\d: validation_score 0$", written, re.MULTILINE)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_a_bar_is_drawn_for_training_and_for_validation_alone(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    runner = fitted()
    shown = terminal.getvalue()
    assert "epoch 3/3" in shown
    assert "3/3" in shown
    assert "train_loss" in shown
    terminal.truncate(0)
    runner.valid()
    assert "validation" in terminal.getvalue()


@pytest.mark.contract("wall_e-27")
def test_wall_e_27_the_table_counts_epochs_from_one_and_marks_the_best(capsys):
    values = [0.5, 0.9, 0.9, 0.1]
    runner = fitted(4, Figures(values), training={"progress_bar": True})
    written = capsys.readouterr().err
    rows = re.findall(r"│ (\d+)\s+│.*│ ([\d.]+)( \*)?\s*│$", written, re.MULTILINE)
    assert rows == [("1", "0.5", ""), ("2", "0.9", " *"), ("3", "0.9", ""), ("4", "0.1", "")]
    summary = next(one for one in runner.callbacks if isinstance(one, EpochSummary))
    assert [row["validation_score"] for row in summary.rows] == pytest.approx(values)


def test_the_table_of_a_long_training_is_short_and_holds_the_best():
    summary = EpochSummary()
    summary.rows = [{"validation_loss": abs(number - 40.0)} for number in range(100)]
    table = summary.table()
    assert table.columns[0]._cells == ["1", "2", "3", "4", "5", "…", "41", "…", "96", "97", "98", "99", "100"]
    assert table.columns[1]._cells[6] == "0 *"
    other = EpochSummary()
    other.load_state_dict(summary.state_dict())
    assert other.rows == summary.rows


def test_the_best_row_is_the_first_of_the_best_and_nan_is_never_it():
    rows = [{"a_loss": float("nan")}, {"a_loss": 2.0}, {"a_loss": 1.0}, {"a_loss": 1.0}]
    assert best_row(rows, "a_loss", {}) == 2
    assert best_row(rows, "a_loss", {"a_loss": True}) == 1
    assert best_row(rows[:1], "a_loss", {}) is None
    names = {"validation_loss": False, "recall@5_validation": True, "glossary_hits": True, "fnmr@0.01_test": False}
    assert {name: greater_is_better(name) for name in names} == names


@pytest.mark.contract("wall_e-21", "ruling-10")
def test_wall_e_21_early_stopping_sees_the_validation_of_its_own_epoch():
    # Worse from the second epoch on: two waited for, so that training ends after the third.
    model = Figures([0.9, 0.5, 0.4, 0.3, 0.2])
    early = {"monitor": "validation_score", "patience": 2}
    runner = fitted(5, model, training={"early_stop": early, "progress_bar": False})
    assert runner.state.current_epoch == 3
    stop = runner.callbacks[0]
    assert (stop.best, stop.waited) == (pytest.approx(0.9), 2)
    other = EarlyStop()
    other.load_state_dict(stop.state_dict())
    assert (other.best, other.waited) == (stop.best, 2)


@pytest.mark.parametrize(
    ("values", "words", "epochs"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5], {}, 5),
        ([0.5, 0.4, 0.3, 0.2, 0.1], {"greater_is_better": False}, 5),
        ([0.5, 0.54, 0.58, 0.9, 0.1], {"delta": 0.05, "patience": 1}, 2),
        ([float("nan")] * 5, {"patience": 2}, 2),
        ([0.5, float("nan"), 0.6, float("nan"), float("nan")], {"patience": 2}, 5),
    ],
)
def test_early_stopping_waits_as_told(values, words, epochs):
    runner = fitted(5, Figures(values), training={"early_stop": {"monitor": "validation_score", **words}})
    assert runner.state.current_epoch == epochs


def test_early_stopping_tells_of_a_figure_that_is_not_logged():
    with pytest.raises(ConfigError, match=r"early stopping watches 'recall', which is not logged; accepted:"):
        fitted(training={"early_stop": {"monitor": "recall"}})
    with pytest.raises(ConfigError, match="patience of early stopping should be at least 1, got 0"):
        fitted(training={"early_stop": {"patience": 0}})
    with pytest.raises(ConfigError, match="callback 'EarlyStop' has no setting 'mode'"):
        fitted(training={"early_stop": {"mode": "min"}})


def test_early_stopping_without_validation_looks_at_the_training():
    torch.manual_seed(0)
    early = EarlyStop("train_loss", patience=1, greater_is_better=True)
    Runner(ToyModel(), 9, loader(3), cfg={"optimizer": {"type": "SGD", "lr": 0.01}}, callbacks=[early]).fit()
    assert early.waited == 1


def test_rates_and_gradients_are_logged_step_by_step():
    class Seen(BaseCallBack):
        lines = []  # noqa: RUF012

        def after_running_batch(self):
            figures = self.runner.state.trainer.callback_metrics
            gradients = [p.grad for p in self.runner.model.parameters()]
            norm = torch.cat([g.flatten() for g in gradients]).norm().item()
            self.lines.append((float(figures["lr"]), float(figures["train_gradient_norm"]), norm))

    cfg = {"optimizer": {"type": "SGD", "lr": 1e-3}, "scheduler": {"type": "linear", "warmup_rate": 0.0}}
    fitted(1, callbacks=[StepMonitor(), Seen()], **cfg)
    assert [rate for rate, *_ in Seen.lines] == pytest.approx([1e-3, 2e-3 / 3, 1e-3 / 3])
    for _, shown, norm in Seen.lines:
        assert shown == pytest.approx(norm, rel=1e-5)
    with pytest.raises(ConfigError, match="every_n_steps should be a positive integer, got 0"):
        StepMonitor(0)


def test_throughput_is_logged_each_epoch():
    class Seen(BaseCallBack):
        figures = []  # noqa: RUF012

        def after_train(self):
            self.figures.append(self.runner.state.trainer.callback_metrics["train_batches_per_second"])

    throughput = Throughput()
    fitted(2, callbacks=[throughput, Seen()])
    assert float(Seen.figures[0]) == pytest.approx(3 / throughput.seconds, rel=1e-3)


@pytest.mark.contract("002-15")
def test_002_15_loggers_of_the_config_get_every_step(tmp_path):
    fitted(2, run_dir=str(tmp_path), log={"csv": True})
    with open(tmp_path / "csv" / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert sum(bool(row["train_loss"]) for row in rows) == 6
    assert sum(bool(row["validation_loss"]) for row in rows) == 2
    with pytest.raises(ConfigError, match=r"log.csv writes into the run's folder: give the config a run_dir"):
        fitted(log={"csv": True})


@pytest.mark.contract("002-15", "wall_e-11")
@pytest.mark.parametrize(
    ("package", "cfg"), [("wandb", {"wandb": {"enable": True}}), ("tensorboard", {"log": {"tensorboard": True}})]
)
def test_wall_e_11_a_logger_whose_package_is_absent_says_what_to_install(monkeypatch, tmp_path, package, cfg):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package}.* pip install 'simtrain\[loggers\]'"):
        Runner(ToyModel(), 1, loader(), cfg={"run_dir": str(tmp_path), **cfg})


def test_progress_may_be_added_by_hand():
    progress = run_progress(every_n_batches=2, aloud=True)
    assert progress.every_n_batches == 2


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"delta": "abc"}, "callback 'EarlyStop': delta should be a number, got 'abc'"),
        (
            {"greater_is_better": "no"},
            "callback 'EarlyStop': greater_is_better should be true or false or null, got 'no'",
        ),
    ],
)
def test_settings_of_another_type_are_named(words, message):
    with pytest.raises(ConfigError, match=message):
        default_callbacks(load_cfg({"training": {"early_stop": words}}))
