"""Loggers get every step's figures, as Lightning gives them, and are not made to write files for each."""

from types import SimpleNamespace

import pytest
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.connectors.logger_connector.logger_connector import _LoggerConnector

from simtrain import Runner
from simtrain.runner import TrainLoop, logged_figures
from tests.runner.exact_runs import KINDS, Lines, torch_seeded


class Saves(Lines):
    """Keeps each line with its step, and how many of them were there when they were saved."""

    def __init__(self):
        super().__init__()
        self.lines, self.saved = [], []

    def log_metrics(self, metrics, step=None):
        self.lines.append((step, metrics))

    def save(self):
        self.saved.append(len(self.lines))


class LightningsOwn(TrainLoop):
    """Logs by way of Lightning's own connector."""

    def prepare(self, trainer, train_loader):
        trainer._logger_connector.__class__ = _LoggerConnector


class Extra(Callback):
    """Logs more in some steps than in others, the step itself among it."""

    def on_before_zero_grad(self, trainer, module, optimizer):
        if trainer.global_step % 3 == 1:
            module.log("extra", float(trainer.global_step), on_step=True)
            module.log("step", 100.0 + trainer.global_step, on_step=True)


def fit(kind, *callbacks, loop=None, epochs=2, **training):
    make, loader, valid, settings = KINDS[kind]
    torch_seeded()
    logger = Saves()
    cfg = {"training": {"device": "cpu", **settings, **training}}
    loaders = {"train_data_loader": loader(), "valid_data_loader": valid and valid()}
    Runner(make(), epochs, **loaders, train_loop=loop, cfg=cfg, callbacks=list(callbacks), logger=logger).fit()
    return logger


@pytest.mark.parametrize("kind", ["cached", "uncached", "accumulation", "cached accumulation", "plain", "updating"])
def test_every_line_is_lightnings(kind):
    ours, theirs = fit(kind, Extra()), fit(kind, Extra(), loop=LightningsOwn())
    assert ours.lines == theirs.lines
    assert len(ours.lines) > 8


@pytest.mark.parametrize("kind", ["cached", "uncached"])
def test_files_are_not_written_for_each_step_but_hold_all_of_an_epoch(kind, monkeypatch):
    monkeypatch.setattr(logged_figures, "time", SimpleNamespace(monotonic=lambda: 0.0))  # however slow the machine is
    logger = fit(kind)
    n_steps = 20  # 40 samples in batches of 4, twice
    assert len(logger.lines) >= n_steps
    assert len(logger.saved) <= 6  # of two epochs, and of two validations
    epochs = [number for number, (_, line) in enumerate(logger.lines, 1) if "validation_loss" in line]
    assert len(epochs) == 2
    assert set(epochs) <= set(logger.saved)
    assert logger.saved[-1] == len(logger.lines)


def test_the_figures_of_slow_steps_do_not_wait_for_the_epoch(monkeypatch):
    clock = iter(range(1000))  # each look at it takes a second; there is one at each step and at each save
    monkeypatch.setattr(logged_figures, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    monkeypatch.setattr(logged_figures, "PATIENCE", 3.0)
    logger = fit("uncached", epochs=1)
    assert [number for number in logger.saved if number < 10] == [0, 3, 6, 9]
