"""The triplet loss within a batch, forward and backward, beside its floor and beside pytorch-metric-learning.

The floor is one matrix of cosine similarities, forward and backward. pytorch-metric-learning (PML) mines the same
triplets; that the values are equal is checked in the same run. Quaterion cannot be installed here: its figures are from
another 2-core machine (hard 3.3 / 43 ms at batch 256 / 1,024; semi-hard 582 ms and all 408 ms at batch 256; at 1,024
those need over 10 GB).

    python benchmarks/losses/triplet.py --quick
    python benchmarks/losses/triplet.py           # half a minute; writes results/triplet.json
    python benchmarks/losses/triplet.py --device cuda
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from torch import Tensor
from torch.nn.functional import normalize

from simtrain.losses import TripletLoss
from simtrain.losses.miners import SemiHardMiner

MARGIN, PER_GROUP = 0.2, 4
RESULTS = Path(__file__).parents[1] / "results" / "triplet.json"

#: (mining, batch) -> milliseconds of Quaterion 0.1.35, one thread of another machine.
QUATERION = {("hard", 256): 3.3, ("hard", 1_024): 43.0, ("semi_hard", 256): 582.0, ("all", 256): 408.0}


def pml(mining: str) -> Callable[[Tensor, Tensor], Tensor]:
    """PML's loss over the same triplets. It has no FaceNet semi-hard miner, so those triplets come from ours."""
    cosine = distances.CosineSimilarity()
    reducer = reducers.AvgNonZeroReducer() if mining == "all" else reducers.MeanReducer()
    loss = losses.TripletMarginLoss(MARGIN, distance=cosine, reducer=reducer)
    miner: Any = {"hard": miners.BatchHardMiner(distance=cosine), "semi_hard": SemiHardMiner()}.get(mining)
    return lambda x, groups: loss(x, groups, None if miner is None else miner(x, groups))


def floor(x: Tensor, groups: Tensor) -> Tensor:
    unit = normalize(x)
    return (unit @ unit.T).sum()


def draw(batch: int, dim: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(batch) // PER_GROUP
    centres = torch.randn(batch // PER_GROUP, dim, generator=generator)
    return centres[groups] + 1.5 * torch.randn(batch, dim, generator=generator), groups


def seconds(ways: dict[str, Callable[[Tensor, Tensor], Tensor]], x: Tensor, groups: Tensor, n: int) -> dict[str, float]:
    """Median seconds of each, forward and backward, measured in turns: the processor's, or a GPU's."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(n + 1):
        for name, way in ways.items():
            start = now(x.device.type)
            way(x.clone().requires_grad_(), groups).backward()
            if number:
                taken[name].append(now(x.device.type) - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def now(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def measure(mining: str, batch: int, dim: int, args: argparse.Namespace) -> dict[str, Any]:
    x, groups = (tensor.to(args.device) for tensor in draw(batch, dim))
    ours = TripletLoss(MARGIN, mining=mining)
    ways: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"floor": floor, "ours": ours}
    if mining != "all" or batch <= args.peer_batch:
        ways["pml"] = pml(mining)
        if mining != "semi_hard":  # there, ours takes the farthest negative where none is beyond; PML's leaves it out
            torch.testing.assert_close(ours(x, groups), ways["pml"](x, groups), rtol=1e-4, atol=1e-5)
    took = seconds(ways, x, groups, args.rounds)
    result: dict[str, Any] = {"mining": mining, "batch": batch, "dim": dim, "device": args.device}
    result |= {f"{name}_ms": round(1000 * value, 2) for name, value in took.items()}
    result["of_floor"] = round(took["ours"] / took["floor"], 2)
    if "pml" in took:
        result["pml_over_ours"] = round(took["pml"] / took["ours"], 1)
    if (mining, batch) in QUATERION:
        result["quaterion_over_ours"] = round(QUATERION[mining, batch] / 1000 / took["ours"], 1)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256, 1_024])
    parser.add_argument("--dim", type=int, nargs="+", default=[384])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--peer-batch", type=int, default=256, help="largest batch in which PML enumerates all triplets"
    )
    parser.add_argument("--quick", action="store_true", help="batch 256 alone, 3 rounds")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    args = parser.parse_args()
    if args.quick:
        args.batch, args.rounds = [256], 3
    torch.set_num_threads(1)
    results = []
    for batch, dim, mining in product(args.batch, args.dim, ("hard", "semi_hard", "all")):
        results.append(measure(mining, batch, dim, args))
        print("  ".join(f"{name} {value}" for name, value in results[-1].items()), flush=True)
    if not args.quick:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
