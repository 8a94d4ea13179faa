"""One of several processes: trains models of the contract in every way, saves their weights into a folder."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import lightning
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset, default_collate

from simtrain import BaseModel, Runner

warnings.simplefilter("ignore")

N, ROWS = 32, 4


class Rows(Dataset):
    """Fixed regression rows, and which of them a process has seen."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(N, 5, generator=generator)
        self.y = self.x.sum(1, keepdim=True)

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> dict:
        return {"x": self.x[index], "y": self.y[index]}


class Overridden(BaseModel):
    """Its train_step is its own: an L1 loss with a factor that no default step would give."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.linear = torch.nn.Linear(5, 1)
        self.steps = 0

    def forward(self, x, y, mode="tensor"):
        error = self.linear(x) - y
        return {"loss": error.square()} if mode == "loss" else [error]

    def train_step(self, batch):
        self.steps += 1
        return {"loss": 3 * (self.linear(batch["x"]) - batch["y"]).abs().mean()}

    def valid_step(self, batch):
        return {"loss": (self.linear(batch["x"]) - batch["y"]).abs().mean()}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


class Manual(Overridden):
    """Updates by itself, twice a batch."""

    def train_step(self, batch, optim_wrapper):
        for _ in range(2):
            self.steps += 1
            optim_wrapper.update_params(3 * (self.linear(batch["x"]) - batch["y"]).abs().mean())
        return {}


KINDS = {"overridden": Overridden, "manual": Manual}
WAYS = ("trainer", "runner")


def train(way: str, kind: str, folder: str) -> None:
    model = KINDS[kind]()
    loader = DataLoader(Rows(), batch_size=ROWS, collate_fn=default_collate)
    if way == "trainer":
        trainer = lightning.Trainer(
            max_epochs=2,
            accelerator="cpu",
            devices=2,
            strategy="ddp",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, loader)
        figure = trainer.validate(model, loader, verbose=False)[0]["validation_loss"]
    else:
        cfg = {"training": {"device": "cpu", "devices": 2, "strategy": "ddp"}}
        runner = Runner(model, 2, loader, loader, cfg=cfg)
        runner.fit()
        figure = runner.valid()["validation_loss"]
    assert dist.get_world_size() == 2
    result = {**model.state_dict(), "steps": model.steps, "figure": float(figure)}
    torch.save(result, Path(folder) / f"{way}-{kind}-{dist.get_rank()}.pt")


if __name__ == "__main__":
    for way in WAYS:
        for kind in KINDS:
            train(way, kind, sys.argv[1])
