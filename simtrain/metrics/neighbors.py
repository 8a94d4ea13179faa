"""Exact nearest neighbours in bounded memory."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from simtrain.errors import ConfigError, nearest
from simtrain.metrics.exclusion import Exclude, Exclusion, split_exclude
from simtrain.metrics.faiss_search import faiss_top
from simtrain.metrics.scan import MEMORY_BUDGET, Scan, Workspace, block_sizes
from simtrain.metrics.similarities import Distance, Similarities
from simtrain.metrics.vectors import Embeddings, as_vectors
from simtrain.models.progress import track

KnownBackend = Literal["torch", "faiss"]
Backend = KnownBackend | str  # names come from configs, too: unknown ones are told below


def top_k(
    queries: Embeddings,
    gallery: Embeddings,
    k: int,
    *,
    distance: Distance = "cosine",
    exclude: Exclude | None = None,
    memory_budget: int = MEMORY_BUDGET,
    show_progress: bool | None = None,
    backend: Backend = "torch",
) -> tuple[Float[Tensor, "queries k"], Int64[Tensor, "queries k"]]:
    """Find the ``k`` nearest gallery items of every query: exact, with no matrix of all scores.

    The order is by score, ties by the lower gallery index. The result does not depend on ``memory_budget``.

    Args:
        queries: Tensor or numpy array, shape ``(queries, dim)``, floating point.
        gallery: The same, shape ``(gallery, dim)``.
        k: Neighbours a query. Where fewer items are left, the rest has index -1 and score minus infinity.
        distance: ``"cosine"``, ``"dot"``, or ``"euclidean"`` (the score is the negative distance).
        exclude: Items to leave out: each query's own gallery index as integers of shape ``(queries,)`` (-1: none);
            booleans of shape ``(queries, gallery)``; or a function ``(query indices, gallery indices) -> booleans``
            called block by block.
        memory_budget: Bytes for scores and candidates beside embeddings and results, default 160 MB. A budget
            smaller than one tile of scores (1.2 MB on a CPU) is taken as one tile.
        show_progress: See :class:`~simtrain.models.progress.Progress`; default: when it takes over a second.
        backend: ``"torch"``, or ``"faiss"`` (``pip install 'simtrain[index]'``): float32 on the CPU, own indices as
            the only exclusion, a copy of a cosine gallery, memory as faiss takes it. Its last digits are its own, so
            near ties may stand the other way round, and of items tied at the last place any may be left out.

    Returns:
        Scores and indices, shape ``(queries, k)`` each, best first. Scores are float32, or float64 where queries or
        gallery are.

    Raises:
        ConfigError: ``k``, ``distance``, ``memory_budget`` or ``backend`` is not one of the accepted values, or the
            backend cannot do what is asked for.
        DataError: Embeddings are not two-dimensional, finite and floating point, or do not fit each other.
        MissingExtraError: The backend is faiss, and it is not installed.

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> scores, indices = top_k(points, points, k=1, exclude=torch.arange(3))
        >>> indices.tolist()
        [[1], [0], [1]]
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ConfigError(f"k is a positive integer, got {k!r}")
    if backend not in get_args(KnownBackend):
        raise ConfigError(f"unknown backend {backend!r}; {nearest(str(backend), get_args(KnownBackend))}")
    left = as_vectors(queries, "queries")
    right = left if queries is gallery else as_vectors(gallery, "gallery")
    similarities = Similarities(left, right, distance)
    own, mask = split_exclude(exclude)
    exclusion = Exclusion(own, mask, n_queries=len(left), n_gallery=len(right), device=right.device)
    if backend == "faiss":
        return faiss_top(similarities, exclusion, k, show_progress)
    return _search(similarities, exclusion, k, memory_budget, show_progress)


def _search(
    similarities: Similarities, exclusion: Exclusion, k: int, memory_budget: int, show_progress: bool | None
) -> tuple[Tensor, Tensor]:
    shape, device = (similarities.n_queries, k), similarities.device
    scores = torch.full(shape, -torch.inf, dtype=similarities.dtype, device=device)
    indices = torch.full(shape, -1, device=device)
    found = min(k, similarities.n_gallery)
    rows, columns = block_sizes(similarities, found, memory_budget)
    workspace = Workspace()
    starts = range(0, len(scores), rows)
    for start in track(starts, len(scores), "searching", show_progress, size=rows):
        queries = torch.arange(start, min(start + rows, len(scores)), device=device)
        best = Scan(similarities, exclusion, queries, columns, workspace).top(found)
        scores[queries, :found], indices[queries, :found] = best
    return scores, indices
