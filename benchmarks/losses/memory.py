"""A training step against a cross-batch memory, beside its floor and beside pytorch-metric-learning.

One step: queue a batch, compare it with the memory, go backward to the batch's embeddings. The floor is what cannot be
left out. For the losses that pick pairs (contrastive, triplet hard), that is the similarities without gradient, then
the dot products of the active pairs with one; for the others, the similarity matrix forward and backward, whatever is
done with it. Queueing is in the step and not in the floor. Peak memory is the growth of the process's resident set
during a step, in units of the float32 similarities of the batch to the whole memory, or of 8 MB where these are less.

    python benchmarks/losses/memory.py --quick       # two minutes
    python benchmarks/losses/memory.py               # all sizes; about fifteen minutes on one thread
    python benchmarks/losses/memory.py --memory 8192 --batch 128 --dim 128 --loss circle
    python benchmarks/losses/memory.py --device cuda

pytorch-metric-learning (PML) enumerates triplets: a case that would need more than --peer-gb is left out. Quaterion
cannot be installed here: its figures are of another 2-core machine (hard triplets, memory 10,000, dimension 384: 43 /
131 / 710 ms at batch 64 / 256 / 1,024). A run replaces the cases it measures in results/memory.json and keeps the rest.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from memory_cases import CASES, ENUMERATED, MAIN
from pytorch_metric_learning import losses
from torch import Tensor, nn
from torch.nn.functional import normalize

from simtrain.losses.memory_blocks import release_space
from simtrain.xbm import XbmBuffer

PER_GROUP = 4
GROUPS = 500
RESULTS = Path(__file__).parents[1] / "results" / "memory.json"
#: Batch -> milliseconds of a step of Quaterion 0.1.35 at memory 10,000, dimension 384, one thread of another machine.
QUATERION = {64: 43.0, 256: 131.0, 1_024: 710.0}
#: Different batches that are queued and compared in turn.
BATCHES = 16
#: More than are ever taken.
STEPS = 10_000

warnings.filterwarnings("ignore")


def draw(memory: int, batch: int, dim: int, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A memory and some batches, as in the middle of a training: classes are clusters that overlap.

    Each step takes the next batch: of one that is queued over and over, the memory would soon hold nothing else.
    """
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(GROUPS, dim, generator=generator)
    groups = torch.randint(GROUPS, (memory,), generator=generator)
    n_own = BATCHES * batch // PER_GROUP
    own = torch.randint(GROUPS, (n_own,), generator=generator).repeat_interleave(PER_GROUP)
    noise = torch.randn(memory + BATCHES * batch, dim, generator=generator)
    embeddings = normalize(centres[torch.cat([groups, own])] + 1.5 * noise)
    rows, more = embeddings[:memory], embeddings[memory:].view(BATCHES, batch, dim)
    return rows.to(device), groups.to(device), more.to(device), own.view(BATCHES, batch).to(device)


def floor_step(name: str, memory: Tensor, memory_groups: Tensor, batches: Tensor, labels: Tensor) -> Callable[[], Any]:
    """The least that a step can cost; what queueing costs is not in it."""
    batch, groups = batches[0], labels[0]

    def dense() -> None:
        anchors = batch.clone().requires_grad_()
        (normalize(anchors) @ memory.T).sum().backward()

    with torch.no_grad():
        similarities, same = batch @ memory.T, groups.unsqueeze(1) == memory_groups
        if name == "contrastive":
            rows, columns = (same | (similarities > 0.5)).nonzero().unbind(1)
        else:
            rows = torch.arange(len(batch), device=batch.device).repeat(2)
            farthest = similarities.masked_fill(~same, torch.inf).argmin(1)
            columns = torch.cat([farthest, similarities.masked_fill(same, -torch.inf).argmax(1)])
        del similarities, same

    def picking() -> None:
        with torch.no_grad():
            batch @ memory.T
        anchors = batch.clone().requires_grad_()
        (normalize(anchors)[rows] * memory[columns]).sum().backward()

    return picking if CASES[name][3] else dense


def our_step(
    name: str, memory: Tensor, memory_groups: Tensor, batches: Tensor, labels: Tensor, dtype: torch.dtype
) -> Any:
    loss, buffer = CASES[name][0](), XbmBuffer(len(memory), memory.shape[1], dtype=dtype).to(memory.device)
    buffer.queue(memory, memory_groups, torch.arange(len(memory), device=memory.device))
    numbers = iter(range(STEPS))
    # As from a loader, numbers of items that the memory does not know.
    new = (-1 - torch.arange(STEPS * batches.shape[1], device=memory.device)).view(STEPS, -1)

    def step() -> Tensor:
        number = next(numbers)
        anchors, groups = batches[number % BATCHES].clone().requires_grad_(), labels[number % BATCHES]
        items = new[number]
        buffer.queue(anchors.detach(), groups, items)
        value = loss.memory_rows_loss(anchors, groups, items, buffer.rows())
        value.backward()
        return value

    return step


def peer_step(name: str, memory: Tensor, memory_groups: Tensor, batches: Tensor, labels: Tensor) -> Any:
    _, make_loss, make_miner, _, _ = CASES[name]
    miner: nn.Module | None = None if make_miner is None else make_miner()
    peer = losses.CrossBatchMemory(make_loss(), memory.shape[1], memory_size=len(memory), miner=miner)
    peer.to(memory.device)
    peer.add_to_memory(memory, memory_groups, len(memory))
    peer.has_been_filled = True
    numbers = iter(range(10**9))

    def step() -> Tensor:
        number = next(numbers)
        anchors, groups = batches[number % BATCHES].clone().requires_grad_(), labels[number % BATCHES]
        value = peer(anchors, groups)
        value.backward()
        return value

    return step


def peer_bytes(name: str, memory: int, batch: int) -> float:
    positives = max(memory / GROUPS, 1)
    return CASES[name][4] * batch * memory * (positives if name in ("triplet all", "nt-xent") else 1)


def peak_growth(step: Callable[[], Any], device: str) -> int:
    """Bytes that a step adds at its peak, once its buffers are back with the system."""
    release_space()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)  # else the step would be served from what earlier ones have left
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    step()
    return max(_status("VmHWM") - before, 0)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def now(device: str) -> float:
    """Processor seconds; on a GPU, those of the clock once it is idle."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def seconds(steps: dict[str, Callable[[], Any]], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each, measured in turns: what else the machine does hits all alike."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    began, number = time.perf_counter(), 0
    # Quick steps get more rounds, since the first ones are slower: half a second of them. Slow ones get fewer.
    while (
        number < 3
        or (number <= rounds and time.perf_counter() - began < 4)
        or (number <= 10 * rounds and time.perf_counter() - began < 0.5)
    ):
        for name, step in steps.items():
            start = now(device)
            step()
            taken[name].append(now(device) - start)
        number += 1
    return {name: statistics.median(times[1 + len(times) // 4 :]) for name, times in taken.items()}


def measure(name: str, memory: int, batch: int, dim: int, args: argparse.Namespace) -> dict[str, Any]:
    data = draw(memory, batch, dim, args.device)
    steps: dict[str, Callable[[], Any]] = {"floor": floor_step(name, *data), "ours": our_step(name, *data, args.dtype)}
    growth = peak_growth(steps["ours"], args.device)
    if peer_bytes(name, memory, batch) < args.peer_gb * 2**30:
        steps["pml"] = peer_step(name, *data)
    took = seconds(steps, args.rounds, args.device)
    block = max(4 * batch * memory, 8 << 20)
    result = {"loss": name, "memory": memory, "batch": batch, "dim": dim, "device": args.device}
    result |= {f"{key}_ms": round(1000 * value, 2) for key, value in took.items()}
    result |= {"of_floor": round(took["ours"] / took["floor"], 2)}
    result |= {"peak_mb": round(growth / 1e6, 1), "peak_blocks": round(growth / block, 2)}
    if "pml" in took:
        result["pml_over_ours"] = round(took["pml"] / took["ours"], 1)
    if name == "triplet hard" and memory == 10_000 and dim == 384 and batch in QUATERION:
        result["quaterion_over_ours"] = round(QUATERION[batch] / 1000 / took["ours"], 1)
    return result


def cases(args: argparse.Namespace) -> Iterator[tuple[str, int, int, int]]:
    for memory, batch, dim in product(args.memory, args.batch, args.dim):
        chosen = args.loss or (MAIN + ENUMERATED if memory <= 8_192 and batch <= 256 and dim == 128 else MAIN)
        yield from ((name, memory, batch, dim) for name in chosen)
    if not args.loss and args.dim != [128]:
        yield from (("triplet hard", 10_000, batch, 384) for batch in args.batch)


def shown(row: dict[str, Any]) -> str:
    beside = [row.get(name, float("nan")) for name in ("pml_ms", "pml_over_ours", "quaterion_over_ours")]
    return (
        f"{row['loss']:17}{row['memory']:8}{row['batch']:6}{row['dim']:5}{row['floor_ms']:10.2f}{row['ours_ms']:10.2f}"
        f"{row['of_floor']:7.2f}{beside[0]:11.2f}{beside[1]:9.1f}{beside[2]:10.1f}{row['peak_mb']:9.1f}"
        f"{row['peak_blocks']:8.2f}"
    )


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """Put rows in place of those of the same case."""
    names = ("device", "loss", "memory", "batch", "dim")
    known = json.loads(path.read_text()) if path.exists() else []
    merged = {tuple(row[name] for name in names): row for row in [*known, *rows]}
    path.write_text(json.dumps([merged[case] for case in sorted(merged)], indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", type=int, nargs="+", default=[1_024, 8_192, 32_768, 131_072])
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256, 1_024])
    parser.add_argument("--dim", type=int, nargs="+", default=[128, 384])
    parser.add_argument("--loss", nargs="+", choices=list(CASES), help="default: those of the goals")
    parser.add_argument("--dtype", default="float32", help="of the memory: float32, float16 or bfloat16")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-gb", type=float, default=3.0, help="leave PML out where it needs more")
    parser.add_argument("--quick", action="store_true", help="batch 64 and 256, dimension 128, memory up to 32,768")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go")
    args = parser.parse_args()
    args.dtype = getattr(torch, args.dtype)
    if args.quick:
        args.memory, args.batch, args.dim, args.rounds = [1_024, 8_192, 32_768], [64, 256], [128], 3
    torch.set_num_threads(1)
    print(f"{'loss':17}{'memory':>8}{'batch':>6}{'dim':>5}{'floor ms':>10}{'ours ms':>10}{'ratio':>7}{'PML ms':>11}"
          f"{'PML/ours':>9}{'Quat/ours':>10}{'peak MB':>9}{'blocks':>8}")  # fmt: skip
    for case in cases(args):
        row = measure(*case, args)
        print(shown(row), flush=True)
        write([row], args.json)


if __name__ == "__main__":
    main()
