"""Embeddings that are brought to unit length when they are used, so that no second copy of them is kept."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from simtrain.metrics.vectors import chunks, unit_rows

# A row is divided by its length where this lies in the range; beyond it the length would lose digits.
SHORTEST, LONGEST = 1e-30, 1e30


class ScaledRows:
    """Rows of embeddings, at unit length or as they are.

    Args:
        vectors: Finite, shape ``(rows, dim)``, float32 or float64. They are not copied, unless a row is so long or so
            short that it takes two steps to scale it.
        unit: Whether rows are scaled to length 1; rows of zeros stay zero.

    Example:
        >>> ScaledRows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), unit=True)[0:2]
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """

    def __init__(self, vectors: Float[Tensor, "rows dim"], unit: bool) -> None:
        self._vectors = vectors
        self._lengths: Tensor | None = None
        if unit:
            lengths = _lengths(vectors)
            if bool(((lengths > 0) & ((lengths < SHORTEST) | (lengths > LONGEST))).any()):
                self._vectors = unit_rows(vectors)
            else:
                self._lengths = lengths.where(lengths > 0, 1.0)[:, None]

    def __len__(self) -> int:
        return len(self._vectors)

    def __getitem__(self, rows: slice | Int64[Tensor, " some"]) -> Float[Tensor, "some dim"]:
        # Divided, not multiplied by the inverse: rows with a single entry are then one exactly, and tie.
        if isinstance(rows, Tensor):
            some = self._vectors.index_select(0, rows)
            return some if self._lengths is None else some.div_(self._lengths.index_select(0, rows))
        return self._vectors[rows] if self._lengths is None else self._vectors[rows] / self._lengths[rows]

    @property
    def dim(self) -> int:
        """Entries of a row."""
        return self._vectors.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """float32 or float64."""
        return self._vectors.dtype

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self._vectors.device


def _lengths(vectors: Tensor) -> Tensor:
    lengths = vectors.new_empty(len(vectors))
    start = 0
    for chunk in chunks(vectors):
        # Squares of float32 neither overflow nor vanish in float64; float64 itself is scaled by its largest entry.
        peak = chunk.abs().amax(dim=1, keepdim=True)
        scaled = chunk / peak.where(peak > 0, 1.0)
        lengths[start : start + len(chunk)] = (scaled.double().norm(dim=1, keepdim=True) * peak.double())[:, 0]
        start += len(chunk)
    return lengths
