"""One of several gloo processes: fills a DISK cache that all share, and a CPU cache of its own.

Run as ``fill_caches.py FOLDER`` with the environment that torchrun gives.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from simtrain.cache import CacheConfig, open_cache
from simtrain.encoders import ModuleEncoder

ITEMS = [torch.tensor([float(number % 90), 1.0]) for number in range(100)]


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    results = {}
    for kind in ("disk", "cpu"):
        encoder = ModuleEncoder(nn.Linear(2, 3), 3, trainable=False)
        torch.nn.init.constant_(encoder.module.weight, 0.5)
        torch.nn.init.constant_(encoder.module.bias, 0.25)
        cache = open_cache("item", encoder, CacheConfig(save_dir=folder / "cache"), kind)
        dist.barrier()
        report = cache.fill(ITEMS, batch_size=8)
        dist.barrier()
        results[kind] = {"vectors": cache.gather(cache.rows(ITEMS)), "encoded": torch.tensor(report.n_encoded)}
    torch.save(results, folder / f"{dist.get_rank()}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
