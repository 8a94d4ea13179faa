"""Distances between embeddings, each in a pair form ``(a[i], b[i])`` and a matrix form ``(a[i], b[j])``.

Both forms agree up to rounding. Half precision inputs are widened to float32 and autocast is switched off inside: at
a scale of 20, the rounding of a bfloat16 similarity would move a loss by a tenth. Gradients are finite everywhere;
where a distance has none (euclidean and manhattan at 0, cosine at a zero vector) it is zero.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from simtrain.errors import ConfigError, nearest
from simtrain.losses.unit_vectors import unit_vectors

_Form = Callable[[Tensor, Tensor], Tensor]


class Distance(str, Enum):
    """Names of the distances. A plain string such as ``"cosine"`` is accepted wherever one is asked for.

    Example:
        >>> Distance.of("cosine")
        <Distance.COSINE: 'cosine'>
    """

    COSINE = "cosine"
    EUCLIDEAN = "euclidean"
    SQUARED_EUCLIDEAN = "squared_euclidean"
    DOT = "dot"
    MANHATTAN = "manhattan"

    @classmethod
    def of(cls, name: str) -> Distance:
        """Distance of that name.

        Raises:
            ConfigError: There is none; the message gives the nearest one.
        """
        try:
            return cls(name)
        except ValueError:
            raise ConfigError(f"unknown distance {name!r}; {nearest(str(name), [d.value for d in cls])}") from None


def pair_distances(
    a: Float[Tensor, "n dim"], b: Float[Tensor, "n dim"], distance: str = Distance.COSINE
) -> Float[Tensor, " n"]:
    """Distances of ``a[i]`` to ``b[i]``.

    Args:
        a: Embeddings, shape ``(n, dim)``.
        b: Embeddings, shape ``(n, dim)``.
        distance: One of :class:`Distance`. ``"dot"`` is the negated dot product, and so may be below zero.

    Returns:
        Shape ``(n,)``, float32 or wider.

    Raises:
        ConfigError: The distance is unknown.

    Example:
        >>> pair_distances(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0]]), "euclidean")
        tensor([5.])
    """
    return _apply(_PAIR_FORMS[Distance.of(distance)], a, b)


def pair_similarities(
    a: Float[Tensor, "n dim"], b: Float[Tensor, "n dim"], distance: str = Distance.COSINE
) -> Float[Tensor, " n"]:
    """Similarities of ``a[i]`` to ``b[i]``: the cosine, the dot product, or a negated distance.

    Args:
        a: Embeddings, shape ``(n, dim)``.
        b: Embeddings, shape ``(n, dim)``.
        distance: One of :class:`Distance`.

    Returns:
        Shape ``(n,)``, float32 or wider.

    Raises:
        ConfigError: The distance is unknown.

    Example:
        >>> pair_similarities(torch.tensor([[3.0, 0.0]]), torch.tensor([[2.0, 0.0]]))
        tensor([1.])
    """
    distances = pair_distances(a, b, distance)
    return 1 - distances if Distance.of(distance) is Distance.COSINE else -distances


def distance_matrix(
    a: Float[Tensor, "n dim"], b: Float[Tensor, "m dim"], distance: str = Distance.COSINE
) -> Float[Tensor, "n m"]:
    """Distances of every ``a[i]`` to every ``b[j]``.

    Args:
        a: Embeddings, shape ``(n, dim)``.
        b: Embeddings, shape ``(m, dim)``.
        distance: One of :class:`Distance`. The euclidean ones come from a matrix product: a squared distance that
            is within that product's rounding error of zero is zero, with a zero gradient.

    Returns:
        Shape ``(n, m)``, float32 or wider.

    Raises:
        ConfigError: The distance is unknown.

    Example:
        >>> distance_matrix(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
        tensor([[0., 1., 2.]])
    """
    return _apply(_MATRIX_FORMS[Distance.of(distance)], a, b)


def listed_distances(
    embeddings: Float[Tensor, "n dim"], rows: Integer[Tensor, " m"], columns: Integer[Tensor, " m"], distance: str
) -> Float[Tensor, " m"]:
    """Distances of ``embeddings[rows[i]]`` to ``embeddings[columns[i]]``, in memory of the order of ``n * n``.

    Args:
        embeddings: Shape ``(n, dim)``.
        rows: Shape ``(m,)``.
        columns: Shape ``(m,)``.
        distance: One of :class:`Distance`.

    Returns:
        Shape ``(m,)``, float32 or wider.

    Example:
        >>> listed_distances(torch.eye(2), torch.tensor([0, 0]), torch.tensor([0, 1]), "cosine")
        tensor([0., 1.])
    """
    if rows.numel() * embeddings.shape[1] > len(embeddings) ** 2:
        return distance_matrix(embeddings, embeddings, distance)[rows, columns]
    return pair_distances(embeddings[rows], embeddings[columns], distance)


def similarity_matrix(
    a: Float[Tensor, "n dim"], b: Float[Tensor, "m dim"], distance: str = Distance.COSINE
) -> Float[Tensor, "n m"]:
    """Similarities of every ``a[i]`` to every ``b[j]``: the cosine, the dot product, or a negated distance.

    Args:
        a: Embeddings, shape ``(n, dim)``.
        b: Embeddings, shape ``(m, dim)``.
        distance: One of :class:`Distance`.

    Returns:
        Shape ``(n, m)``, float32 or wider; memory of its own, which the caller may change in place.

    Raises:
        ConfigError: The distance is unknown.

    Example:
        >>> similarity_matrix(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        tensor([[1., 0.]])
    """
    return _apply(_SIMILARITY_FORMS[Distance.of(distance)], a, b)


def _apply(form: _Form, a: Tensor, b: Tensor) -> Tensor:
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    with torch.autocast(a.device.type, enabled=False):
        return form(a.to(dtype), b.to(dtype))


def _cosine_similarities(a: Tensor, b: Tensor) -> Tensor:
    return unit_vectors(a) @ unit_vectors(b).T


def _dot_similarities(a: Tensor, b: Tensor) -> Tensor:
    return a @ b.T


def _cosine_pairs(a: Tensor, b: Tensor) -> Tensor:
    return 1 - (unit_vectors(a) * unit_vectors(b)).sum(dim=1)


def _cosine_matrix(a: Tensor, b: Tensor) -> Tensor:
    return _cosine_similarities(a, b).neg_().add_(1)


def _dot_pairs(a: Tensor, b: Tensor) -> Tensor:
    return -(a * b).sum(dim=1)


def _dot_matrix(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T).neg_()


def _squared_euclidean_pairs(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().sum(dim=1)


def _squared_euclidean_matrix(a: Tensor, b: Tensor) -> Tensor:
    # Distances do not move with the origin, but their rounding error does: it grows with the norms, which are
    # small around the centre. The centre needs no gradient, since its own would be zero.
    centre = b.detach().mean(dim=0)
    a, b = a - centre, b - centre
    norms = a.square().sum(dim=1, keepdim=True) + b.square().sum(dim=1)
    # Equal rows came out at up to 5 (4 dimensions) to 26 (4,096 dimensions) ulps of their squared norms.
    ulps = 4 + a.shape[1] ** 0.5 / 2
    noise = norms.detach() * (ulps * torch.finfo(a.dtype).eps)
    squared = norms - 2 * (a @ b.T)
    return squared.masked_fill(squared.detach() <= noise, 0)


def _euclidean_pairs(a: Tensor, b: Tensor) -> Tensor:
    distances: Tensor = torch.linalg.vector_norm(a - b, dim=1)
    return distances


def _euclidean_matrix(a: Tensor, b: Tensor) -> Tensor:
    squared = _squared_euclidean_matrix(a, b)
    at_zero = squared.detach() <= 0
    # The square root of 1 in place of 0 keeps its infinite slope out of the backward pass.
    return squared.masked_fill(at_zero, 1).sqrt().masked_fill(at_zero, 0)


def _manhattan_pairs(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().sum(dim=1)


def _manhattan_matrix(a: Tensor, b: Tensor) -> Tensor:
    distances: Tensor = torch.cdist(a, b, p=1.0)
    return distances


def _negated(form: _Form) -> _Form:
    return lambda a, b: form(a, b).neg()


_PAIR_FORMS: dict[Distance, _Form] = {
    Distance.COSINE: _cosine_pairs,
    Distance.EUCLIDEAN: _euclidean_pairs,
    Distance.SQUARED_EUCLIDEAN: _squared_euclidean_pairs,
    Distance.DOT: _dot_pairs,
    Distance.MANHATTAN: _manhattan_pairs,
}
_MATRIX_FORMS: dict[Distance, _Form] = {
    Distance.COSINE: _cosine_matrix,
    Distance.EUCLIDEAN: _euclidean_matrix,
    Distance.SQUARED_EUCLIDEAN: _squared_euclidean_matrix,
    Distance.DOT: _dot_matrix,
    Distance.MANHATTAN: _manhattan_matrix,
}
_SIMILARITY_FORMS: dict[Distance, _Form] = {
    Distance.COSINE: _cosine_similarities,
    Distance.EUCLIDEAN: _negated(_euclidean_matrix),
    Distance.SQUARED_EUCLIDEAN: _negated(_squared_euclidean_matrix),
    Distance.DOT: _dot_similarities,
    Distance.MANHATTAN: _negated(_manhattan_matrix),
}
