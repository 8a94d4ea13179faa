"""Items that several processes encode together: a part each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from simtrain.evaluation.process_group import gathered_chunks, n_processes, process_rank
from simtrain.evaluation.retrieval_task import RetrievalTask


def encoded_together(encode: Callable[..., Any], items: Sequence[Any], **options: Any) -> Tensor | None:
    """Embeddings of all items in the first process; None in the others.

    Every process encodes an item in so many; all must call it.

    Args:
        encode: ``encode``, ``encode_query`` or ``encode_document`` of a model.
        items: The items, the same in all processes.
        **options: Options of ``encode``.

    Returns:
        Shape ``(items, dim)``, in the order of the items.
    """
    rank, world = process_rank(), n_processes()
    options = {**options, "to_numpy": False}
    if world == 1:
        whole: Tensor = encode(list(items), **options)
        return whole
    mine = list(items[rank::world])
    # Of a set that is smaller than the number of processes, some have no part: an item encoded once more is no harm.
    own: Tensor = encode(mine or list(items[:1]), **options)[: len(mine)].float()
    result: Tensor | None = None
    done = [0] * world
    for owner, chunk in gathered_chunks(own):
        if rank == 0:
            if result is None:
                result = torch.empty(len(items), chunk.shape[1])
            places = owner + world * torch.arange(done[owner], done[owner] + len(chunk))
            result[places] = chunk
            done[owner] += len(chunk)
    return result


def task_encoded_together(model: Any, task: RetrievalTask, **options: Any) -> tuple[Tensor, Tensor | None] | None:
    """Embeddings of a task's queries and gallery in the first process; None in the others."""
    if task.gallery is None:
        alone = encoded_together(model.encode, task.queries, **options)
        return None if alone is None else (alone, None)
    queries = encoded_together(model.encode_query, task.queries, **options)
    gallery = encoded_together(model.encode_document, task.gallery, **options)
    return None if queries is None else (queries, gallery)
