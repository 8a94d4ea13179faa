"""Embeddings as the search takes them: two-dimensional, finite, float32 or float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, finfo, float32, float64, from_numpy, is_tensor, promote_types

from simtrain.errors import DataError

Embeddings = Tensor | NDArray[Any]

CHUNK = 4096


def as_vectors(embeddings: Embeddings, name: str) -> Float[Tensor, "rows dim"]:
    """Check embeddings and bring them to float32; float64 stays.

    Args:
        embeddings: Tensor or numpy array, shape ``(rows, dim)``, floating point.
        name: What the rows are, for the messages: ``"queries"`` or ``"gallery"``.

    Returns:
        Detached tensor, shape ``(rows, dim)``, on the device of ``embeddings`` (of an MPS device: the CPU, since
        float64 is not known there).

    Raises:
        DataError: Not two-dimensional, not floating point, or a row holds NaN or infinity.

    Example:
        >>> as_vectors(np.zeros((2, 3), dtype=np.float16), "queries").dtype
        torch.float32
    """
    vectors = _as_tensor(embeddings, name)
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise DataError(f"the {name} must have shape (rows, dim) with dim > 0, got {tuple(vectors.shape)}")
    if not vectors.is_floating_point():
        raise DataError(f"the {name} must be floating point, got {vectors.dtype}; convert them with .float()")
    _check_finite(vectors, name)
    if vectors.device.type == "mps":
        vectors = vectors.cpu()
    return vectors if vectors.dtype == float64 else vectors.to(float32)


def common_dtype(queries: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
    """Bring queries and gallery to one dtype, and check that they can be compared.

    Raises:
        DataError: The numbers of dimensions or the devices differ.
    """
    if queries.shape[1] != gallery.shape[1]:
        raise DataError(
            f"queries have {queries.shape[1]} dimensions, the gallery has {gallery.shape[1]}; "
            "embed both with the same model"
        )
    if queries.device != gallery.device:
        raise DataError(f"queries are on {queries.device}, the gallery on {gallery.device}; move both to one device")
    dtype = promote_types(queries.dtype, gallery.dtype)
    return queries.to(dtype), gallery.to(dtype)


def unit_rows(vectors: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows dim"]:
    """Rows scaled to length 1; rows of zeros stay zero. Rows of any finite magnitude are scaled without overflow.

    Example:
        >>> import torch
        >>> unit_rows(torch.tensor([[3e30, 4e30], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    result = vectors.new_empty(vectors.shape)
    start = 0
    for chunk in chunks(vectors):
        # Division by the largest entry first keeps squares from overflowing or vanishing.
        peak = chunk.abs().amax(dim=1, keepdim=True)
        scaled = chunk / peak.where(peak > 0, 1.0)
        norm = scaled.norm(dim=1, keepdim=True)
        result[start : start + len(chunk)] = scaled / norm.where(norm > 0, 1.0)
        start += len(chunk)
    return result


def check_range(queries: Tensor, gallery: Tensor) -> None:
    """Refuse magnitudes whose products overflow: an infinite score has no rank.

    Raises:
        DataError: A dot product or squared distance may exceed the dtype's largest number.
    """
    if not len(queries) or not len(gallery):
        return
    largest = max(float(vectors.aminmax().max) for vectors in (queries, gallery))
    smallest = min(float(vectors.aminmax().min) for vectors in (queries, gallery))
    reach = max(largest, -smallest)
    if 4.0 * reach * reach * queries.shape[1] > finfo(queries.dtype).max:
        raise DataError(
            f"embeddings as large as {reach:.3g} overflow {queries.dtype} in products; scale them, "
            "pass float64, or use distance='cosine'"
        )


def chunks(vectors: Tensor) -> Iterator[Tensor]:
    """Views of about equal numbers of rows, so that temporaries stay small beside the embeddings."""
    yield from vectors.tensor_split(max(1, -(-len(vectors) // CHUNK)))


def _as_tensor(embeddings: Embeddings, name: str) -> Tensor:
    if is_tensor(embeddings):
        return embeddings.detach()
    if isinstance(embeddings, np.ndarray) and embeddings.dtype.kind in "fiub":
        # from_numpy shares memory and warns about read-only arrays (memory maps): those are copied.
        native = embeddings.dtype.newbyteorder("=")
        return from_numpy(np.require(embeddings, native, requirements=["C", "W"]))
    kind = f"an array of {embeddings.dtype}" if isinstance(embeddings, np.ndarray) else f"a {type(embeddings).__name__}"
    raise DataError(f"the {name} must be a tensor or a numpy array of numbers, got {kind}")


def _check_finite(vectors: Tensor, name: str) -> None:
    start = 0
    for chunk in chunks(vectors):
        bad = (~chunk.isfinite().all(dim=1)).nonzero()
        if len(bad):
            raise DataError(
                f"row {start + int(bad[0])} of the {name} holds NaN or infinity; nothing can be ranked against it"
            )
        start += len(chunk)
