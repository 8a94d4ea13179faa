"""Nearest neighbours by faiss, with the same answers as :func:`~simtrain.metrics.top_k`."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from simtrain.errors import ConfigError, import_extra
from simtrain.metrics.exclusion import Exclusion
from simtrain.metrics.similarities import Similarities
from simtrain.models.progress import track

# Queries a call, so that a progress bar moves.
QUERIES = 1024


def faiss_top(
    similarities: Similarities, exclusion: Exclusion, k: int, show_progress: bool | None
) -> tuple[Float[Tensor, "queries k"], Int64[Tensor, "queries k"]]:
    """Best ``k`` gallery items of every query; at most the gallery's size.

    Args:
        similarities: Queries and gallery.
        exclusion: What to leave out: at most each query's own item.
        k: How many.
        show_progress: See :class:`~simtrain.models.progress.Progress`.

    Returns:
        Scores and indices, shape ``(queries, k)`` each; see :func:`~simtrain.metrics.top_k`.

    Raises:
        ConfigError: More than a query's own item is left out, or embeddings are not float32 on a CPU.
        MissingExtraError: faiss is not installed.
    """
    faiss: Any = import_extra("faiss", "index")
    if exclusion.has_mask:
        raise ConfigError("backend='faiss' leaves out a query's own item at most; for other exclusions use 'torch'")
    if similarities.dtype != torch.float32 or similarities.device.type != "cpu":
        raise ConfigError(
            f"backend='faiss' takes float32 embeddings on the CPU, got {similarities.dtype} on {similarities.device}; "
            f"use backend='torch'"
        )
    n_queries, n_gallery = similarities.n_queries, similarities.n_gallery
    wanted = min(k + (exclusion.own is not None), n_gallery)
    scores = torch.full((n_queries, k), -torch.inf)
    indices = torch.full((n_queries, k), -1)
    euclidean = similarities.distance == "euclidean"
    metric = faiss.METRIC_L2 if euclidean else faiss.METRIC_INNER_PRODUCT
    gallery = similarities.gallery_rows(slice(0, n_gallery)).contiguous().numpy()
    for start in track(range(0, n_queries, QUERIES), n_queries, "searching", show_progress, size=QUERIES):
        queries = torch.arange(start, min(start + QUERIES, n_queries))
        found, items = faiss.knn(similarities.query_rows(queries).contiguous().numpy(), gallery, wanted, metric)
        values = torch.from_numpy(found)
        best, at = _ordered(values.sqrt().neg() if euclidean else values, torch.from_numpy(items), exclusion, queries)
        width = min(k, wanted)
        scores[queries, :width], indices[queries, :width] = best[:, :width], at[:, :width]
    return scores, indices.masked_fill_(scores.isneginf(), -1)


def _ordered(scores: Tensor, items: Tensor, exclusion: Exclusion, queries: Tensor) -> tuple[Tensor, Tensor]:
    """By score, ties by index; each query's own item last."""
    if exclusion.own is not None:
        scores = scores.masked_fill(items == exclusion.own[queries, None], -torch.inf)
    items, order = items.sort(dim=1)
    scores, place = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
    return scores, items.gather(1, place)
