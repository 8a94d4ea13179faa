"""One of several processes: trains with samplers, stops and goes on. Words: folder."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import lightning
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from simtrain.data import GroupSimilarityDataLoader, HardClassSampler, PKSampler, SimilarityGroupSample

warnings.simplefilter("ignore")

SAMPLES = [SimilarityGroupSample(number, number % 9) for number in range(75)]
LABELS = [sample.group for sample in SAMPLES]
POINTS = torch.nn.functional.normalize(torch.randn(75, 4, generator=torch.Generator().manual_seed(0)))
BATCH = 6


def make_loader(sampler: str, batch_size: int, workers: int = 0) -> DataLoader:
    """A loader whose seed is drawn, so that every process would have its own."""
    if sampler == "shuffle":
        return GroupSimilarityDataLoader(SAMPLES, batch_size=batch_size, shuffle=True, num_workers=workers)
    if sampler == "pk":
        chosen = PKSampler(LABELS, batch_size=batch_size, per_group=2)
    else:
        chosen = HardClassSampler(LABELS, batch_size=batch_size, per_group=2)
        chosen.update(POINTS)
    return GroupSimilarityDataLoader(SAMPLES, batch_size=batch_size, sampler=chosen, num_workers=workers)


class Recorder(lightning.LightningModule):
    """A weight for each item; notes what it is trained on."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(len(SAMPLES)))
        self.seen: list[tuple[int, list[int]]] = []
        self.stop_at = stop_at

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, list(batch.objects)))
        return (self.weight[batch.objects] - 1).square().mean()

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if self.stop_at is not None and self.global_step == self.stop_at:
            self.trainer.save_checkpoint(Path(self.folder) / "stopped.ckpt")
            self.trainer.should_stop = True

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


def make_trainer(devices: int, epochs: int = 3) -> lightning.Trainer:
    """A quiet trainer on the CPU."""
    return lightning.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def main(folder: str) -> None:
    """Train with each sampler, stop and go on with a loader made anew, and save what was seen."""
    rank = int(os.environ["RANK"])
    for number, sampler in enumerate(("shuffle", "hard")):
        for way in ("stop", "resume"):
            # Processes of a user who sets no seed.
            torch.manual_seed(100 * number + 10 * (way == "resume") + rank)
            loader = make_loader(sampler, BATCH, workers=2 if sampler == "shuffle" else 0)
            drawn = loader.sampler.seed
            model = Recorder(stop_at=8 if way == "stop" else None)
            model.folder = folder
            trainer = make_trainer(2)
            trainer.fit(model, loader, ckpt_path=Path(folder) / "stopped.ckpt" if way == "resume" else None)
            assert trainer.train_dataloader is loader, "the loader was made anew"
            result = {"seen": model.seen, "drawn": drawn, "seed": loader.sampler.seed, "weight": model.weight.detach()}
            torch.save(result, Path(folder) / f"{sampler}-{way}{rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
    dist.destroy_process_group()
