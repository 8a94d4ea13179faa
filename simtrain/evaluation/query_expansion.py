"""Embeddings moved towards their neighbours: query expansion and database augmentation."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from simtrain.errors import ConfigError, DataError
from simtrain.metrics.exclusion import Exclude
from simtrain.metrics.neighbors import top_k
from simtrain.metrics.vectors import as_vectors, unit_rows

CHUNK = 1024


def expand_queries(
    queries: Float[Tensor, "queries dim"],
    gallery: Float[Tensor, "gallery dim"],
    k: int = 5,
    alpha: float | int = 3.0,
    *,
    exclude: Exclude | None = None,
) -> Float[Tensor, "queries dim"]:
    """Replace each query by the weighted sum of itself and its ``k`` nearest gallery items (alpha-QE).

    A neighbour weighs its cosine to the power of ``alpha``, the query itself 1; neighbours at an obtuse angle weigh
    nothing. ``alpha=0`` is the average query expansion.

    Args:
        queries: Shape ``(queries, dim)``.
        gallery: Shape ``(gallery, dim)``.
        k: Neighbours to add.
        alpha: The power, at least 0.
        exclude: What a query does not see, as for :func:`simtrain.metrics.top_k`.

    Returns:
        Unit rows, shape ``(queries, dim)``.

    Raises:
        ConfigError: ``k`` or ``alpha`` is out of range.
        DataError: The gallery is empty, or rows do not fit each other.

    Reference:
        Radenović, Tolias, Chum: Fine-tuning CNN Image Retrieval with No Human Annotation, 2018, section 3.4;
        Chum et al.: Total Recall, 2007 (average query expansion).

    Example:
        >>> expand_queries(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8], [-1.0, 0.0]]), k=1, alpha=0)
        tensor([[0.8944, 0.4472]])
    """
    if alpha < 0:
        raise ConfigError(f"alpha should be at least 0, got {alpha}")
    if not len(gallery):
        raise DataError("queries are expanded by gallery items, and the gallery is empty")
    left, right = (unit_rows(as_vectors(rows, name)) for rows, name in ((queries, "queries"), (gallery, "gallery")))
    scores, items = top_k(left, right, k=k, distance="dot", exclude=exclude)
    # Missing neighbours of a small gallery have index -1, and no weight.
    weights = torch.where((items >= 0) & (scores > 0), scores.clamp(min=0) ** alpha, 0.0)
    expanded = torch.empty_like(left)
    for rows in torch.split(torch.arange(len(left), device=left.device), CHUNK):
        neighbours = right[items[rows].clamp(min=0)]
        expanded[rows] = left[rows] + (weights[rows, :, None] * neighbours).sum(dim=1)
    return unit_rows(expanded)


def augment_gallery(
    gallery: Float[Tensor, "gallery dim"], k: int = 5, alpha: float | int = 3.0
) -> Float[Tensor, "gallery dim"]:
    """Replace each gallery item by the weighted sum of itself and its ``k`` nearest others (database augmentation).

    Weights are those of :func:`expand_queries`. Done once, when the index is built.

    Args:
        gallery: Shape ``(gallery, dim)``.
        k: Neighbours to add.
        alpha: Power of the cosine that a neighbour weighs.

    Returns:
        Unit rows, shape ``(gallery, dim)``.

    Raises:
        ConfigError: ``k`` or ``alpha`` is out of range.

    Reference:
        Turcot, Lowe: Better Matching with Fewer Features, 2009; Arandjelović, Zisserman: Three Things Everyone
        Should Know to Improve Object Retrieval, 2012.

    Example:
        >>> augment_gallery(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]), k=1, alpha=0)[2]
        tensor([0.3162, 0.9487])
    """
    return expand_queries(gallery, gallery, k, alpha, exclude=torch.arange(len(gallery), device=gallery.device))
