"""Which gallery items are relevant to which query: by equal labels, or pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int, Int64
from numpy.typing import NDArray
from torch import Tensor

from simtrain.errors import DataError

Relevant = Tensor | NDArray[Any] | Sequence[Any]


class Relevance:
    """Lists of relevant gallery items, stored end to end; queries may share a list.

    Args:
        items: Gallery indices, all lists one after the other, ascending within a list.
        start: Where each query's list starts in ``items``, shape ``(queries,)``.
        count: How long it is, shape ``(queries,)``.
    """

    def __init__(
        self, items: Int64[Tensor, " pairs"], start: Int64[Tensor, " queries"], count: Int64[Tensor, " queries"]
    ) -> None:
        self._items, self._start, self._count = items, start, count

    def counts(self) -> Int64[Tensor, " queries"]:
        """Number of relevant items of every query, before any exclusion."""
        return self._count

    def columns(self, queries: Int64[Tensor, " rows"]) -> Int64[Tensor, "rows most"]:
        """Relevant gallery indices of some queries, ascending, padded with -1 to the longest list."""
        count = self._count[queries]
        offset = torch.arange(int(count.max()) if len(count) else 0, device=count.device)
        inside = offset < count[:, None]
        return self._items[(self._start[queries, None] + offset) * inside].where(inside, -1)

    def contains(self, queries: Int64[Tensor, " rows"], items: Int64[Tensor, "rows k"]) -> Bool[Tensor, "rows k"]:
        """Whether each item is relevant to its row's query; -1 never is."""
        raise NotImplementedError(f"{type(self).__name__} must implement `contains`")


class LabelRelevance(Relevance):
    """Items are relevant to a query when their labels are equal.

    Args:
        query_labels: int64 numbers, shape ``(queries,)``.
        gallery_labels: int64 numbers, shape ``(gallery,)``.

    Example:
        >>> import torch
        >>> relevance = LabelRelevance(torch.tensor([7, 8]), torch.tensor([8, 7, 7]))
        >>> relevance.counts().tolist(), relevance.columns(torch.tensor([0, 1])).tolist()
        ([2, 1], [[1, 2], [0, -1]])
    """

    def __init__(self, query_labels: Int64[Tensor, " queries"], gallery_labels: Int64[Tensor, " gallery"]) -> None:
        values, items = gallery_labels.sort(stable=True)
        start = torch.searchsorted(values, query_labels)
        count = torch.searchsorted(values, query_labels, right=True) - start
        self._query_labels, self._gallery_labels = query_labels, gallery_labels
        super().__init__(items, start, count)

    @property
    def labels(self) -> Int64[Tensor, " items"] | None:
        """The labels, where queries and gallery have the same ones; else None."""
        return self._gallery_labels if torch.equal(self._query_labels, self._gallery_labels) else None

    def contains(self, queries: Int64[Tensor, " rows"], items: Int64[Tensor, "rows k"]) -> Bool[Tensor, "rows k"]:
        """Whether each item is relevant to its row's query; -1 never is."""
        return (self._gallery_labels[items] == self._query_labels[queries, None]) & (items >= 0)


class PairRelevance(Relevance):
    """Items are relevant to a query when the pair is listed. Repeated pairs count once.

    Args:
        pairs: ``(query index, gallery index)``, shape ``(pairs, 2)``.
        n_queries: Number of queries.
        n_gallery: Size of the gallery.

    Raises:
        DataError: An index is out of range.

    Example:
        >>> relevance = PairRelevance(torch.tensor([[0, 4], [0, 2], [2, 1]]), n_queries=3, n_gallery=5)
        >>> relevance.counts().tolist()
        [2, 0, 1]
    """

    def __init__(self, pairs: Int[Tensor, "pairs 2"], n_queries: int, n_gallery: int) -> None:
        for column, size, name in ((0, n_queries, "query"), (1, n_gallery, "gallery")):
            wrong = (pairs[:, column] < 0) | (pairs[:, column] >= size)
            if bool(wrong.any()):
                raise DataError(
                    f"relevant= names {name} index {int(pairs[wrong][0, column])}, "
                    f"accepted are 0 to {size - 1} for {size} rows"
                )
        keys = torch.unique(pairs[:, 0].long() * n_gallery + pairs[:, 1].long())
        owners = keys.div(max(n_gallery, 1), rounding_mode="floor")
        count = torch.bincount(owners, minlength=n_queries)
        self._keys, self._n_gallery = keys, n_gallery
        super().__init__(keys - owners * n_gallery, count.cumsum(0) - count, count)

    def contains(self, queries: Int64[Tensor, " rows"], items: Int64[Tensor, "rows k"]) -> Bool[Tensor, "rows k"]:
        """Whether each item is relevant to its row's query; -1 never is."""
        if not len(self._keys):
            return torch.zeros_like(items, dtype=torch.bool)
        wanted = queries[:, None] * self._n_gallery + items
        at = torch.searchsorted(self._keys, wanted).clamp_(max=len(self._keys) - 1)
        return torch.eq(self._keys[at], wanted) & (items >= 0)


def as_pairs(relevant: Relevant, n_queries: int) -> Int64[Tensor, "pairs 2"]:
    """Bring explicit relevance to ``(query index, gallery index)`` rows.

    Args:
        relevant: Integer tensor or array of shape ``(pairs, 2)``; or a sequence with, for each query, the indices
            of its relevant gallery items (tensors, arrays, lists, sets; may be empty).
        n_queries: Number of queries.

    Returns:
        int64 tensor, shape ``(pairs, 2)``.

    Raises:
        DataError: The shape or the dtype is another one, or the sequence has not one entry a query.

    Example:
        >>> as_pairs([[3], [], [0, 1]], n_queries=3).tolist()
        [[0, 3], [2, 0], [2, 1]]
    """
    if isinstance(relevant, np.ndarray) and relevant.dtype.kind in "iu":
        relevant = torch.tensor(relevant.astype(np.int64))
    if isinstance(relevant, Tensor):
        if relevant.ndim != 2 or relevant.shape[1] != 2 or relevant.is_floating_point():
            raise DataError(
                "relevant= must be integer rows (query index, gallery index), shape (pairs, 2), "
                f"got {relevant.dtype} of shape {tuple(relevant.shape)}"
            )
        return relevant.long()
    if len(relevant) != n_queries:
        raise DataError(f"relevant= has {len(relevant)} entries for {n_queries} queries; give one list a query")
    rows = [(query, _index(item)) for query, items in enumerate(relevant) for item in items]
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 2)


def _index(item: Any) -> int:
    value = item.item() if isinstance(item, Tensor | np.generic) else item
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"relevant= must hold gallery indices (integers), got {value!r}")
    return value
