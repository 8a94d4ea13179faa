"""One of several processes: a Runner that shuffles and accumulates; one batch is not finite in one process."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

from simtrain import BaseCallBack, BaseModel, Evaluator, Runner
from simtrain.evaluation.base_metric import BaseMetric, Numbered

warnings.simplefilter("ignore")

N, ROWS, EPOCHS, WINDOW = 32, 4, 2, 3
#: The batch, counted over all epochs, that is spoilt in the second process alone.
SPOILT = 2


class Rows(Dataset):
    """Fixed regression rows."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(N, 5, generator=generator)
        self.y = self.x.sum(1, keepdim=True)

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> dict:
        return {"x": self.x[index], "y": self.y[index], "row": index}


class Line(BaseModel):
    """Linear regression, whose loss is not finite once in one process."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.linear = torch.nn.Linear(5, 1)
        self.steps = 0

    def compute_loss(self, batch):
        return {"loss": (self.linear(batch["x"]) - batch["y"]).square().mean()}

    def train_step(self, batch):
        self.steps += 1
        loss = self.compute_loss(batch)["loss"]
        is_spoilt = self.steps == SPOILT and dist.is_initialized() and dist.get_rank() == 1
        return {"loss": loss * float("inf") if is_spoilt else loss}

    def valid_step(self, batch):
        return {"error": (self.linear(batch["x"]) - batch["y"]).abs()}

    test_step = valid_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


class MeanError(BaseMetric):
    """The mean of all errors, each row once."""

    def process(self, data_batch, data_samples):
        rows = zip(data_batch["row"].tolist(), data_samples["error"].flatten().tolist(), strict=True)
        self.results += [Numbered(row, error) for row, error in rows]

    def compute_metrics(self, results):
        return {"error": sum(results) / len(results)}


class Diary(BaseCallBack):
    """The order of hooks, and the rows of each epoch."""

    def __init__(self) -> None:
        self.lines: list[str] = []


def note(hook):
    return lambda self: self.lines.append(hook)


for each in ("before_fit", "before_train", "before_running_epoch", "after_valid", "after_running_epoch", "after_fit"):
    setattr(Diary, each, note(each))


def train(folder: str) -> None:
    model, diary, data = Line(), Diary(), Rows()
    loader = DataLoader(data, batch_size=ROWS, shuffle=True)
    training = {"device": "cpu", "devices": 2, "strategy": "ddp", "gradient_accumulation": WINDOW}
    runner = Runner(
        model, EPOCHS, loader, DataLoader(data, batch_size=5), cfg={"training": training}, callbacks=[diary],
        valid_evaluator=Evaluator(MeanError()),
    )  # fmt: skip
    assert runner.state.world_size == 2
    runner.fit()
    figure = runner.valid()["error"]
    result = {**model.state_dict(), "lines": diary.lines, "figure": figure, "rank": runner.state.rank}
    torch.save(result, Path(folder) / f"runner-{dist.get_rank()}.pt")
    # An exchange that nobody waits for: a process that just ends here aborts more often than not.
    dist.group.WORLD.allgather([torch.empty(9) for _ in range(2)], torch.ones(9))


if __name__ == "__main__":
    train(sys.argv[1])
