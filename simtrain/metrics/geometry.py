"""How embeddings lie in space: how near matches are, how spread all are, how many dimensions are used."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from simtrain.errors import ConfigError, DataError
from simtrain.metrics.similarities import full_precision
from simtrain.metrics.vectors import Embeddings, as_vectors, chunks, unit_rows
from simtrain.models.progress import track

CHUNK = 256


def alignment(first: Embeddings, second: Embeddings, alpha: float | int = 2) -> float:
    """Mean distance of matching items on the unit sphere, to the power of ``alpha``; lower is better.

    Args:
        first: Shape ``(pairs, dim)``; rows are scaled to length 1.
        second: The matching item of each row.
        alpha: Exponent above 0.

    Raises:
        ConfigError: ``alpha`` is not above 0.
        DataError: Shapes differ, there is no row, or a row holds NaN.

    Reference:
        Wang, Isola: Understanding Contrastive Representation Learning through Alignment and Uniformity on the
        Hypersphere, 2020.

    Example:
        >>> alignment(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]]))
        2.0
    """
    if not alpha > 0:
        raise ConfigError(f"alpha is a number above 0, got {alpha!r}")
    left, right = as_vectors(first, "first items"), as_vectors(second, "second items")
    if left.shape != right.shape or not len(left):
        raise DataError(f"each row needs its match: got shapes {tuple(left.shape)} and {tuple(right.shape)}")
    return float(squared_gaps(unit_rows(left), unit_rows(right)).pow(alpha / 2).mean())


def squared_gaps(left: Float[Tensor, "pairs dim"], right: Float[Tensor, "pairs dim"]) -> Float64[Tensor, " pairs"]:
    """Squared distance of each row to its match, float64."""
    return (left.double() - right.double()).square().sum(dim=1)


def uniformity(embeddings: Embeddings, t: float | int = 2, *, show_progress: bool | None = None) -> float:
    """Logarithm of the mean of ``exp(-t d^2)`` over all pairs of rows on the unit sphere; lower is more spread.

    Memory does not grow with the number of pairs.

    Args:
        embeddings: Shape ``(rows, dim)``, two rows at least; they are scaled to length 1.
        t: Factor above 0.
        show_progress: See :class:`~simtrain.models.progress.Progress`; default: when it takes over a second.

    Raises:
        ConfigError: ``t`` is not above 0.
        DataError: There are fewer than two rows, or a row holds NaN.

    Reference:
        Wang, Isola: Understanding Contrastive Representation Learning through Alignment and Uniformity on the
        Hypersphere, 2020.

    Example:
        >>> uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        -8.0
    """
    if not t > 0:
        raise ConfigError(f"t is a number above 0, got {t!r}")
    rows = unit_rows(as_vectors(embeddings, "embeddings"))
    if len(rows) < 2:
        raise DataError(f"uniformity is of pairs of rows: two are needed, got {len(rows)}")
    # Every pair comes twice.
    mean = float(sum_of_potentials(rows, t, show_progress)) / (len(rows) * (len(rows) - 1))
    return math.log(mean) if mean > 0.0 else -math.inf


def sum_of_potentials(
    rows: Float[Tensor, "rows dim"], t: float | int, show_progress: bool | None = False
) -> Float64[Tensor, ""]:
    """Sum of ``exp(-t d^2)`` over all ordered pairs of different unit rows, in memory of some rows with all."""
    total = torch.zeros((), dtype=torch.float64, device=rows.device)
    # d^2 of unit rows is 2 - 2 cos; a row of zeros has no unit row.
    lengths = rows.any(dim=1).double()
    starts = range(0, len(rows), CHUNK)
    for start in track(starts, len(rows), "comparing rows", show_progress, size=CHUNK):
        part = rows[start : start + CHUNK]
        with full_precision(rows.device.type):
            cosines = part @ rows.T
        squared = cosines.double().mul_(-2.0).add_(lengths).add_(lengths[start : start + CHUNK, None])
        potentials = squared.clamp_(min=0.0).mul_(-t).exp_()
        potentials.diagonal(offset=start).zero_()
        total += potentials.sum()
    return total


def effective_rank(embeddings: Embeddings, center: bool = False) -> float:
    """How many dimensions embeddings use: the exponential of the entropy of their normalised singular values.

    From 1 (all on one line: collapsed) to the smaller of rows and dimensions. Self-supervised work calls it RankMe.

    Args:
        embeddings: Shape ``(rows, dim)``.
        center: Take the mean row off first, so that a shift common to all does not count.

    Returns:
        The rank; 0.0 where all is zero.

    Raises:
        DataError: There is no row, or a row holds NaN.

    Reference:
        Roy, Vetterli: The effective rank: a measure of effective dimensionality, 2007. Garrido et al.: RankMe:
        Assessing the Downstream Performance of Pretrained Self-Supervised Representations by Their Rank, 2023.

    Example:
        >>> round(effective_rank(torch.eye(4)), 6), round(effective_rank(torch.ones(9, 4)), 6)
        (4.0, 1.0)
    """
    rows = as_vectors(embeddings, "embeddings")
    if not len(rows):
        raise DataError("the effective rank of no row is not known; give some embeddings")
    total = rows.new_zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    mean = rows.double().mean(dim=0) if center else 0.0
    for part in chunks(rows):
        moved = part.double() - mean
        total += moved.T @ moved
    return rank_of_products(total)


def rank_of_products(products: Float64[Tensor, "dim dim"]) -> float:
    """Effective rank of rows from the sum of their outer products.

    Example:
        >>> rank_of_products(torch.diag(torch.tensor([4.0, 4.0]).double()))
        2.0
    """
    singular = torch.linalg.eigvalsh(products).clamp(min=0.0).sqrt()
    if not float(singular.sum()) > 0.0:
        return 0.0
    # Squares below the rounding of the largest one are noise.
    noise = float(singular.max()) * math.sqrt(len(singular) * torch.finfo(torch.float64).eps)
    shares = singular[singular > noise] / singular[singular > noise].sum()
    return float(torch.exp(-(shares * shares.log()).sum()))
