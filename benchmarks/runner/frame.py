"""What the frame costs: the Runner's trainer loop beside a bare ``lightning.Trainer``, and logging every step.

One similarity model (a skip-connection head over 384-dimensional vectors, multiple negatives ranking, AdamW) on the
same prepared loader, one thread. The ways take turns, so that a busy machine slows all of them; what counts is the time
from the first batch to the last: medians over the rounds, ratios within each round. Before any figure is taken, all
ways are shown to end with the same weights. Run ``python benchmarks/runner/frame.py``; ``--quick`` takes half a minute.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

from simtrain import Runner, TrainableModel
from simtrain.data import PairsSimilarityDataLoader, SimilarityPairSample
from simtrain.encoders import PrecomputedEncoder
from simtrain.heads import SkipConnectionHead
from simtrain.losses import MultipleNegativesRankingLoss
from simtrain.runner.quiet_lightning import quiet_lightning

DIM = 384
RESULTS = Path(__file__).parents[1] / "results" / "runner.json"
#: Way → the way that it is measured against, and how much more time it may take.
GOALS = {"runner": ("trainer", 1.10), "runner, every step logged": ("runner", 1.05)}


class Clock(lightning.pytorch.Callback):
    """Seconds from the first epoch's start to the last one's end, without the setting up."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start."""
        self.start = time.perf_counter()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop."""
        self.seconds = time.perf_counter() - self.start


class Ways:
    """The ways to train, each from a number of epochs to a clock and the weights that it left."""

    def __init__(self, n: int, batch_size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        queries, documents = torch.randn(2, n, DIM, generator=generator)
        self.samples = [SimilarityPairSample(a, b) for a, b in zip(queries, documents, strict=True)]
        self.batch_size = batch_size
        self.by_name: dict[str, Callable[[int], tuple[float, list[Tensor]]]] = {
            "trainer": self.trainer,
            "runner": self.runner,
            "runner, every step logged": lambda epochs: self.runner(epochs, logged=True),
        }

    def parts(self) -> tuple[TrainableModel, Any]:
        """A model and its loader."""
        torch.manual_seed(1)
        model = TrainableModel(
            encoders=PrecomputedEncoder(DIM), head=SkipConnectionHead, loss=MultipleNegativesRankingLoss()
        )
        return model, PairsSimilarityDataLoader(self.samples, batch_size=self.batch_size)

    def trainer(self, epochs: int) -> tuple[float, list[Tensor]]:
        """A bare trainer, with nothing but a clock."""
        (model, loader), clock = self.parts(), Clock()
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            callbacks=[clock],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with quiet_lightning():
            trainer.fit(model, model.setup_dataloader(loader))
        return clock.seconds, [p.detach().clone() for p in model.parameters()]

    def runner(self, epochs: int, logged: bool = False) -> tuple[float, list[Tensor]]:
        """The Runner with all of its defaults, in the trainer's loop."""
        (model, loader), clock = self.parts(), Clock()
        cfg = {"training": {"loop": "trainer", "device": "cpu"}}
        with tempfile.TemporaryDirectory() as folder:
            logger = CSVLogger(folder) if logged else None
            Runner(model, epochs, loader, cfg=cfg, callbacks=[clock], logger=logger).fit()
        return clock.seconds, [p.detach().clone() for p in model.parameters()]


def measure(ways: Ways, epochs: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways.by_name}
    for _ in range(rounds):
        for name, way in ways.by_name.items():
            seconds[name].append(way(epochs)[0])
    return seconds


def check(ways: Ways) -> None:
    """All ways end with the same weights; also a round that warms up."""
    left = {name: way(1)[1] for name, way in ways.by_name.items()}
    for name, weights in left.items():
        assert all(map(torch.equal, weights, left["trainer"])), f"{name} ended with other weights"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, default=RESULTS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    rounds, rows = (3, 64) if args.quick else (9, 200)
    found = []
    print(f"{'batch':>6} {'way':<28} {'ms a step':>10} {'ratio':>7}  goal")
    for batch_size in (32, 256):
        ways = Ways(rows * batch_size, batch_size)
        check(ways)
        seconds = measure(ways, 2, rounds)
        for name, taken in seconds.items():
            against, goal = GOALS.get(name, ("", None))
            # Of each round, so that a machine that is busy for a while is busy for both.
            ratio = statistics.median(a / b for a, b in zip(taken, seconds[against], strict=True)) if against else None
            step = 1000 * statistics.median(taken) / (2 * rows)
            row = {"batch_size": batch_size, "way": name, "ms_per_step": round(step, 4), "against": against or None}
            found.append({**row, "ratio": None if ratio is None else round(ratio, 4), "goal": goal})
            shown = "" if ratio is None else f"{ratio:7.3f}  {goal} of {against}"
            print(f"{batch_size:>6} {name:<28} {step:>10.3f} {shown}")
    args.json.write_text(json.dumps({"rounds": rounds, "steps": 2 * rows, "rows": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
