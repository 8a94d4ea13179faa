"""PCA and whitening of embeddings, fitted on one set and applied to others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from simtrain.errors import ConfigError, DataError
from simtrain.metrics.vectors import as_vectors, unit_rows

CHUNK = 8192


@dataclass(frozen=True)
class Whitening:
    """A fitted transformation: centre, project, scale, and bring rows to unit length.

    Attributes:
        mean: Of the rows that it was fitted on, shape ``(dim,)``, float64.
        projection: Shape ``(dim, kept)``, float64.

    Example:
        >>> rows = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> fit_whitening(rows)(torch.tensor([[2.0, 1.0]])).abs()
        tensor([[0.7071, 0.7071]])
    """

    mean: Tensor
    projection: Tensor

    def __call__(self, rows: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows kept"]:
        """Transform rows of the size that it was fitted on, to float32 of unit length.

        Raises:
            DataError: They have another number of dimensions.
        """
        vectors = as_vectors(rows, "rows")
        if vectors.shape[1] != len(self.mean):
            raise DataError(
                f"the whitening was fitted on {len(self.mean)} dimensions, the rows have {vectors.shape[1]}"
            )
        mean, projection = self.mean.to(vectors.device), self.projection.to(vectors.device)
        parts = [(part.double() - mean) @ projection for part in torch.split(vectors, CHUNK)]
        return unit_rows(torch.cat([part.float() for part in parts]))


def fit_whitening(
    rows: Float[Tensor, "rows dim"], dim: int | None = None, *, whiten: bool = True, eps: float | int = 1e-9
) -> Whitening:
    """Fit PCA on embeddings, brought to unit length first where they are to be compared by cosine.

    Args:
        rows: Shape ``(rows, dim)``: the gallery, or a training set.
        dim: Directions of largest variance to keep; default: all.
        whiten: Scale each kept direction to variance 1; without it, it is PCA alone.
        eps: Share of the largest variance that is added to each one before scaling, so that directions without any
            are not blown up.

    Raises:
        ConfigError: ``dim`` or ``eps`` is out of range.
        DataError: There are fewer than two rows, or they hold NaN.

    Reference:
        Jégou, Chum: Negative Evidences and Co-occurrences in Image Retrieval: the Benefit of PCA and Whitening, 2012.
    """
    vectors = as_vectors(rows, "rows")
    n, size = vectors.shape
    kept = size if dim is None else dim
    if not 1 <= kept <= size:
        raise ConfigError(f"dim should be from 1 to the {size} dimensions of the embeddings, got {kept}")
    if eps < 0:
        raise ConfigError(f"eps should be at least 0, got {eps}")
    if n < 2:
        raise DataError(f"whitening needs two rows at least to fit on, got {n}")
    mean = torch.stack([part.double().sum(dim=0) for part in torch.split(vectors, CHUNK)]).sum(dim=0) / n
    covariance = vectors.new_zeros(size, size, dtype=torch.float64)
    for part in torch.split(vectors, CHUNK):
        centred = part.double() - mean
        covariance += centred.T @ centred / n
    values, directions = torch.linalg.eigh(covariance)
    values, directions = values.flip(0)[:kept].clamp(min=0), directions.flip(1)[:, :kept]
    if whiten:
        scale = (values + eps * values[0]).clamp(min=torch.finfo(torch.float64).tiny).rsqrt()
        # No variance at all: nothing to scale.
        directions = directions * torch.where(values[0] > 0, scale, 1.0)
    return Whitening(mean, directions)
