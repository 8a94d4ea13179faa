"""Gallery items that a query is not searched among: itself, or whatever a mask says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64
from numpy.typing import NDArray
from torch import Tensor

from simtrain.errors import DataError

MaskFunction = Callable[[Tensor, Tensor], Any]
Exclude = Tensor | NDArray[Any] | MaskFunction


class Exclusion:
    """What to leave out of each query's search.

    Args:
        own: For each query its own gallery index (-1: none), shape ``(queries,)``, or None.
        mask: None; booleans of shape ``(queries, gallery)``, True where the pair is left out; or a function
            ``(query indices, gallery indices) -> booleans of shape (rows, columns)``. The function is called block
            by block, for some blocks more than once, so it must always give the same answer.
        n_queries: Number of queries.
        n_gallery: Size of the gallery.
        device: Device of the search.

    Raises:
        DataError: ``own`` or ``mask`` has another shape or dtype.
    """

    def __init__(
        self,
        own: Tensor | None,
        mask: Exclude | None,
        *,
        n_queries: int,
        n_gallery: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self._device = torch.device(device)
        self._n_gallery = n_gallery
        self.own = None if own is None else _checked_own(own.to(device), n_queries, n_gallery)
        self._mask = mask if mask is None or callable(mask) else _as_mask(mask, (n_queries, n_gallery), "exclude")

    @property
    def has_mask(self) -> bool:
        """Whether more than a query's own item may be left out."""
        return self._mask is not None

    def is_own(self, n: int) -> bool:
        """Whether each of ``n`` queries leaves out the gallery item of its own number, and nothing else."""
        return not self.has_mask and self.own is not None and torch.equal(self.own.cpu(), torch.arange(n))

    def own_places(
        self, queries: Int64[Tensor, " rows"], start: int, stop: int
    ) -> tuple[Int64[Tensor, " found"], Int64[Tensor, " found"]]:
        """Rows and columns, within a block, of the queries' own items."""
        if self.own is None:
            empty = queries.new_empty(0)
            return empty, empty
        columns = self.own[queries]
        rows = ((columns >= start) & (columns < stop)).nonzero()[:, 0]
        return rows, columns[rows] - start

    def mask(self, queries: Int64[Tensor, " rows"], start: int, stop: int) -> Bool[Tensor, "rows columns"]:
        """Booleans of one block; only where :attr:`has_mask`."""
        if isinstance(self._mask, Tensor):
            return self._mask[queries.to(self._mask.device), start:stop].to(self._device)
        assert callable(self._mask)
        columns = torch.arange(start, stop, device=self._device)
        return _as_mask(self._mask(queries, columns), (len(queries), len(columns)), "exclude(queries, gallery)").to(
            self._device
        )

    def count(self, queries: Int64[Tensor, " rows"], items: Int64[Tensor, "rows most"]) -> Int64[Tensor, " rows"]:
        """How many of the gallery items listed for each query (-1: none) are left out of its search."""
        listed = items >= 0
        if not bool(listed.any()):
            return torch.zeros_like(queries)
        out = torch.zeros_like(listed) if self.own is None else items == self.own[queries, None]
        if self._mask is not None:
            columns, place = torch.unique(items.clamp(min=0), return_inverse=True)
            given = self._mask[queries][:, columns] if isinstance(self._mask, Tensor) else self._mask(queries, columns)
            masked = _as_mask(given, (len(queries), len(columns)), "exclude(queries, gallery)")
            out = out | masked.to(self._device).gather(1, place)
        return (out & listed).sum(dim=1)


def split_exclude(exclude: Exclude | None) -> tuple[Tensor | None, Exclude | None]:
    """Tell own indices (one integer a query) from a mask or a function."""
    if exclude is None or callable(exclude):
        return None, exclude
    given = (
        torch.from_numpy(np.require(exclude, requirements=["C", "W"])) if isinstance(exclude, np.ndarray) else exclude
    )
    if isinstance(given, Tensor) and given.dtype != torch.bool and given.ndim == 1:
        return given, None
    return None, exclude


def _checked_own(own: Tensor, n_queries: int, n_gallery: int) -> Tensor:
    if own.shape != (n_queries,) or own.is_floating_point():
        raise DataError(
            f"own indices in exclude= must be {n_queries} integers, one a query (-1: none), "
            f"got {own.dtype} of shape {tuple(own.shape)}"
        )
    wrong = (own < -1) | (own >= n_gallery)
    if bool(wrong.any()):
        raise DataError(f"exclude= names gallery index {int(own[wrong][0])}, accepted are -1 to {n_gallery - 1}")
    return own.long()


def _as_mask(mask: Any, shape: tuple[int, int], name: str) -> Tensor:
    given = torch.from_numpy(np.require(mask, requirements=["C", "W"])) if isinstance(mask, np.ndarray) else mask
    if not isinstance(given, Tensor) or given.dtype != torch.bool or given.shape != shape:
        kind = f"{given.dtype} of shape {tuple(given.shape)}" if isinstance(given, Tensor) else type(mask).__name__
        raise DataError(f"{name} must be booleans of shape {shape}, True where a pair is left out; got {kind}")
    return given
