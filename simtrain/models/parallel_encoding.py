"""Embedding items in several processes, for many items on a CPU with many cores."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from simtrain.encoders import ItemError
from simtrain.errors import ConfigError
from simtrain.models.encoding_options import EncodingOptions
from simtrain.models.placement import device_of

EmbedModelItems = Callable[[Any, Sequence[Any], int | None, EncodingOptions], Tensor]


def embed_in_processes(
    embed: EmbedModelItems,
    model: Any,
    items: Sequence[Any],
    lengths: Sequence[int],
    side: int | None,
    options: EncodingOptions,
) -> Float[Tensor, "items dim"]:
    """Embed ``items`` in ``options.processes`` processes, each of which calls ``embed(model, items, side, options)``.

    The processes share the cores. Each gets items of all lengths, so that all are done at about the same time. A
    script that uses them has its work under ``if __name__ == "__main__":``, since each process imports it again.

    Returns:
        Embeddings in the order of ``items``, on the CPU.

    Raises:
        ConfigError: The model is not on the CPU.
        DataError: An item cannot be encoded; the message gives its position.
    """
    if device_of(model).type != "cpu":
        raise ConfigError(f"processes={options.processes} is for models on the CPU, this one is on {device_of(model)}")
    order = sorted(range(len(items)), key=lambda i: -lengths[i])
    count = min(options.processes, len(items))
    parts = [order[start::count] for start in range(count)]
    alone = dataclasses.replace(options, processes=1, to_numpy=True, show_progress=False, normalize=False)
    threads = max(1, (os.cpu_count() or 1) // count)
    # Not forked: threads that hold a lock now would hold it for ever in the copy.
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:
        jobs = [
            pool.submit(_embed_part, embed, model, [items[i] for i in part], side, alone, threads) for part in parts
        ]
        results = [_result(job.result(), part) for job, part in zip(jobs, parts, strict=True)]
    embeddings = torch.cat(results)
    rows = torch.empty(len(items), dtype=torch.long)
    rows[torch.tensor([i for part in parts for i in part])] = torch.arange(len(items))
    return embeddings[rows]


def _embed_part(
    embed: EmbedModelItems, model: Any, items: list[Any], side: int | None, options: EncodingOptions, threads: int
) -> Any:
    torch.set_num_threads(threads)
    try:
        return embed(model, items, side, options).numpy()
    except ItemError as error:
        return error.position, error.reason


def _result(given: Any, part: list[int]) -> Tensor:
    if isinstance(given, tuple):
        # The process counted within its part; the user counts in what he gave.
        raise ItemError(part[given[0]], given[1])
    return torch.from_numpy(given)
