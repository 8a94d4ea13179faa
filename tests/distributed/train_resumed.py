"""One of several processes: a run, the same run left in the middle, and gone on with."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback

from tests.runner.exact_runs import Lines, train

CHECKPOINT = {"step_interval": 1, "last": None}


class Leave(Callback):
    """Breaks the run off in a step, in all processes."""

    def on_before_backward(self, trainer, module, loss):
        if trainer.global_step == 4:
            raise RuntimeError("left")


class OwnNumbers(Callback):
    """Each process draws random numbers of its own."""

    def on_fit_start(self, trainer, module):
        torch.manual_seed(100 + trainer.global_rank)


def main(folder: Path) -> None:
    """Leave what each run came to in a file of this process."""
    warnings.simplefilter("ignore")
    words = {"devices": 2, "strategy": "ddp", "checkpoint": CHECKPOINT, "epochs": 2}
    whole = train("ranks", folder / "whole", callbacks=[OwnNumbers()], **words)
    rank = torch.distributed.get_rank()
    train("ranks", folder / "left", callbacks=[OwnNumbers(), Leave()], expect=RuntimeError, **words)
    torch.distributed.barrier()
    lines = Lines()
    resumed = train("ranks", folder / "left", lines=lines, callbacks=[OwnNumbers()], resume_from="auto", **words)
    results = {"whole": whole[0].state_dict(), "resumed": resumed[0].state_dict()}
    torch.save({**results, "lines": [list(whole[1].items()), list(lines.figures.items())]}, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
