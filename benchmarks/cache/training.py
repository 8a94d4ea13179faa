"""Training on cached embeddings: the Runner beside a plain PyTorch loop over the same tensors, and Lightning's Trainer.

A skip-connection head over 50,000 cached vectors of 384 dimensions, Adam, one thread. The ways take turns, so that a
busy machine slows all of them; rates are medians over the rounds, ratios those of the medians. Before any figure is
taken, the Runner's loops and the plain loop are shown to end with the same weights, bit for bit, from the same seed.
Targets: 0.9 of the plain loop with a loss that costs nothing, 0.95 with triplet and SupCon losses, and on a GPU, with
its store there, 0.9 at batch 4096.
Run ``python benchmarks/cache/training.py --json out.json`` (4 minutes); ``--quick`` takes a minute. On a GPU:
``--device cuda --batch-sizes 4096 --losses free``, and the same with ``--compile reduce-overhead``, which captures head
and backward in CUDA graphs in all loops alike.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from simtrain import CacheConfig, CacheType, Runner, TrainableModel
from simtrain.data import GroupSimilarityDataLoader, ShuffleSampler, SimilarityGroupSample
from simtrain.encoders import PrecomputedEncoder
from simtrain.heads import SkipConnectionHead
from simtrain.losses import GroupLoss, SupConLoss, TripletLoss

N_GROUPS = 500
SEED = 3
#: Samples/s that Quaterion 0.1.35 reached at batch 64, 256 and 1024 on another machine (its floor there: 149,000,
#: 374,200 and 557,700): 0.23, 0.18 and 0.17 of the floor. It cannot be installed beside a current torch.
QUATERION = {64: 34_800, 256: 66_900, 1024: 96_000}


class FreeLoss(GroupLoss):
    """A loss that costs nothing: what is left is the data path, the head and the optimizer."""

    def forward(self, embeddings: Tensor, groups: Tensor) -> Tensor:
        """Mean of the embeddings."""
        return embeddings.mean()


LOSSES: dict[str, Callable[[], GroupLoss]] = {
    "free": FreeLoss,
    "triplet": lambda: TripletLoss(margin=0.5, mining="hard"),
    "supcon": SupConLoss,
}


class Data:
    """The vectors and groups, as tensors and as samples."""

    def __init__(self, n: int, dim: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.vectors = torch.randn(n, dim, generator=generator)
        self.groups = torch.arange(n) % N_GROUPS
        pairs = zip(self.vectors, self.groups.tolist(), strict=True)
        self.samples = [SimilarityGroupSample(vector, group) for vector, group in pairs]


class Clock(lightning.pytorch.Callback):
    """Seconds from the first epoch's start to the last one's end, without the setting up."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start."""
        wait(pl_module.device)
        self.start = time.perf_counter()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop."""
        wait(pl_module.device)
        self.seconds = time.perf_counter() - self.start


class TensorModel(lightning.LightningModule):
    """What one writes for a Trainer over tensor batches."""

    def __init__(self, head: nn.Module, loss: GroupLoss) -> None:
        super().__init__()
        self.head, self.loss = head, loss

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Loss of a batch, logged."""
        vectors, groups = batch
        loss = self.loss(self.head(vectors), groups)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return adam(list(self.parameters()))


def adam(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def make_head(dim: int) -> SkipConnectionHead:
    torch.manual_seed(1)
    return SkipConnectionHead(dim)


class Ways:
    """The loops that are compared, each as a function from a number of epochs to seconds; and the weights they left."""

    def __init__(self, data: Data, batch_size: int, loss: str, device: str, compile_mode: str | None = None) -> None:
        self.data, self.batch_size, self.loss, self.device = data, batch_size, LOSSES[loss], torch.device(device)
        self.head: nn.Module | None = None
        self.compile_mode = compile_mode
        dim = data.vectors.shape[1]
        cache = CacheConfig(CacheType.GPU if device == "cuda" else CacheType.CPU)
        self.model = TrainableModel(
            encoders=PrecomputedEncoder(dim),
            head=self.made_head(dim),
            loss=self.loss(),
            optimizer=adam,
            cache=cache,
        )
        sampler = ShuffleSampler(data.samples, seed=SEED)
        loader = GroupSimilarityDataLoader(data.samples, batch_size=batch_size, sampler=sampler)
        self.loader = self.model.to(self.device).setup_dataloader(loader)  # fills the cache, which is not timed
        self.initial = {name: value.clone() for name, value in self.model.model.head.state_dict().items()}
        self.plain_head = self.made_head(dim).to(self.device)
        self.vectors, self.groups = data.vectors.to(self.device), data.groups.to(self.device)

    def made_head(self, dim: int) -> nn.Module:
        """A head, compiled where asked for."""
        head = make_head(dim)
        if self.compile_mode is not None:
            head.compile(mode=self.compile_mode)
        return head

    def plain(self, epochs: int, sampler: ShuffleSampler | None = None) -> float:
        """The floor. With a sampler the order is that of the Runner, else torch's."""
        head = self.head = self.plain_head
        head.load_state_dict(self.initial)
        loss_of, optimizer = self.loss(), adam(list(head.parameters()))
        wait(self.device)
        start = time.perf_counter()
        for _ in range(epochs):
            order = torch.randperm(len(self.vectors)) if sampler is None else torch.tensor(list(sampler))
            for picked in order.to(self.device).split(self.batch_size):
                loss = loss_of(head(self.vectors[picked]), self.groups[picked])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        wait(self.device)
        return time.perf_counter() - start

    def cached(self, epochs: int, loop: str = "cached", **training: Any) -> float:
        """The Runner over the filled cache."""
        self.model.model.head.load_state_dict(self.initial)
        self.head = self.model.model.head
        self.model.to(self.device)
        self.loader.sampler.set_epoch(0)
        clock = Clock()
        settings = {"device": self.device.type, "loop": loop, "progress_bar": False, **training}
        runner = Runner(self.model, epochs, self.loader, cfg={"training": settings}, callbacks=[clock])
        runner.fit()
        return clock.seconds

    def unguarded(self, epochs: int) -> float:
        """The same without its look at every gradient, which the plain loop does not have."""
        return self.cached(epochs, nonfinite_limit=None)

    def trainer(self, epochs: int) -> float:
        """Lightning's Trainer over a DataLoader of tensors."""
        model, clock = TensorModel(self.made_head(self.vectors.shape[1]), self.loss()), Clock()
        loader = DataLoader(TensorDataset(self.data.vectors, self.data.groups), self.batch_size, shuffle=True)
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="gpu" if self.device.type == "cuda" else "cpu",
            devices=1,
            callbacks=[clock],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, loader)
        return clock.seconds

    def check_equal(self) -> None:
        """Same seed, same weights: the two loops of the Runner, and the plain loop in the same order."""
        weights = {}
        for loop in ("trainer", "cached"):
            self.cached(2, loop)
            weights[loop] = [parameter.detach().clone() for parameter in self.model.model.head.parameters()]
        self.plain(2, ShuffleSampler(self.data.samples, seed=SEED))
        assert self.head is not None
        weights["plain"] = [parameter.detach() for parameter in self.head.parameters()]
        for other in ("cached", "plain"):
            for one, two in zip(weights["trainer"], weights[other], strict=True):
                assert torch.equal(one, two), f"the {other} loop ended with other weights than the Trainer's"


def measure(ways: Ways, names: list[str], rounds: int, seconds: float) -> dict[str, float]:
    """Samples/s of each way: medians over rounds in which all take turns."""
    n = len(ways.data.samples)
    epochs = {name: max(1, round(seconds / getattr(ways, name)(1))) for name in names}
    rates: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            rates[name].append(n * epochs[name] / getattr(ways, name)(epochs[name]))
    return {name: statistics.median(values) for name, values in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="about how long each way runs in a round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compile", choices=["default", "reduce-overhead", "max-autotune"], help="torch.compile heads")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: nothing was measured")
        return
    if args.quick:
        args.rounds, args.seconds = 3, 0.5
    torch.set_num_threads(args.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    data = Data(args.n, args.dim)
    print(
        f"{args.n:,} x {args.dim}, Adam, {args.threads} thread(s), {args.device}, torch {torch.__version__}, samples/s"
    )
    names = ["plain", "cached", "unguarded", "trainer"]
    print("loss      batch", *(f"{name:>10}" for name in names), *(f"{name + '/plain':>16}" for name in names[1:]))
    results = []
    for loss, batch_size in itertools.product(args.losses, args.batch_sizes):
        ways = Ways(data, batch_size, loss, args.device, args.compile)
        ways.check_equal()
        rates = measure(ways, names, args.rounds, args.seconds)
        ratios = {name: rates[name] / rates["plain"] for name in names[1:]}
        print(
            f"{loss:8} {batch_size:6}",
            *(f"{rates[name]:10,.0f}" for name in names),
            *(f"{ratios[name]:16.3f}" for name in names[1:]),
            flush=True,
        )
        results.append({"loss": loss, "batch_size": batch_size, "samples_per_s": rates, "ratio_to_plain": ratios})
    if args.json:
        settings = {key: value for key, value in vars(args).items() if key != "json"}
        args.json.write_text(json.dumps({"settings": settings, "quaterion": QUATERION, "results": results}, indent=2))


if __name__ == "__main__":
    main()
