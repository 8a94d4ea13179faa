"""Re-ranking by common neighbours: k-reciprocal encoding."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from simtrain.errors import ConfigError, DataError
from simtrain.metrics.neighbors import top_k
from simtrain.metrics.similarities import full_precision
from simtrain.metrics.vectors import as_vectors, unit_rows
from simtrain.models.progress import track

Pairs = tuple[Tensor, Tensor, Tensor]
BLOCK = 256


class ReciprocalReranking:
    """Distances of queries to gallery items that take their neighbourhoods into account.

    Two items are alike where they have the same reciprocal neighbours. The distance is
    ``lambda_value * d + (1 - lambda_value) * jaccard``; ``d`` is the squared Euclidean distance of unit rows, divided
    by the query's largest one as in the authors' evaluation. Sets are sparse: memory grows with the number of items
    times ``k1``, not with its square.

    Args:
        queries: Shape ``(queries, dim)``.
        gallery: Shape ``(gallery, dim)``; None where the queries are searched among themselves.
        k1: Size of the neighbourhoods.
        k2: Neighbours whose sets are averaged (local query expansion); 1 for none.
        lambda_value: Weight of the original distance, from 0 to 1.
        show_progress: Show a progress bar; None shows one for work of over a second.

    Raises:
        ConfigError: A setting is out of range.
        DataError: Queries and gallery have other numbers of dimensions, or a row holds NaN.

    Reference:
        Zhong, Zheng, Cao, Li: Re-ranking Person Re-identification with k-reciprocal Encoding, 2017.

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [0.99, 0.1], [0.0, 1.0], [0.1, 0.99]])
        >>> distances = ReciprocalReranking(points, k1=2, k2=1).distances(torch.tensor([0]))
        >>> distances.argsort().tolist()
        [[0, 1, 3, 2]]
    """

    def __init__(
        self,
        queries: Float[Tensor, "queries dim"],
        gallery: Float[Tensor, "gallery dim"] | None = None,
        k1: int = 20,
        k2: int = 6,
        lambda_value: float | int = 0.3,
        *,
        show_progress: bool | None = None,
    ) -> None:
        if k1 < 1 or not k2 >= 1:
            raise ConfigError(f"k1 and k2 should be at least 1, got k1={k1}, k2={k2}")
        if not 0 <= lambda_value <= 1:
            raise ConfigError(f"lambda_value should be from 0 to 1, got {lambda_value}")
        # Sets of neighbours are made item by item: that is work for the CPU.
        left = unit_rows(as_vectors(queries, "queries").cpu())
        parts = [left] if gallery is None else [left, unit_rows(as_vectors(gallery, "gallery").cpu())]
        if parts[-1].shape[1] != left.shape[1]:
            raise DataError(f"queries have {left.shape[1]} dimensions, the gallery has {parts[-1].shape[1]}")
        self._all = torch.cat(parts)
        self._first = 0 if gallery is None else len(left)
        self._k1, self._k2, self._lambda, self.show_progress = k1, k2, lambda_value, show_progress
        self.n_queries = len(left)
        self._neighbours = _with_itself_first(self._all, min(max(k1 + 1, k2), len(self._all)))
        self._largest = self._largest_distances()
        self._sets = self._encoded()

    @property
    def n_gallery(self) -> int:
        """Items that are searched."""
        return len(self._all) - self._first

    def distances(self, queries: Int64[Tensor, " rows"]) -> Float[Tensor, "rows gallery"]:
        """Distances of some queries to all gallery items, shape ``(rows, gallery)``, float32."""
        original = self._original(queries)[:, self._first :]
        gallery = _rows_of(self._sets, torch.arange(self._first, len(self._all)))
        shared = self._shared(queries, gallery)
        jaccard = 1.0 - shared / (2.0 - shared)
        distances: Tensor = (self._lambda * original + (1.0 - self._lambda) * jaccard).float()
        return distances

    def _shared(self, queries: Tensor, gallery: Pairs) -> Tensor:
        """Sum of the smaller weight of each item, over all items, of each query and gallery item."""
        by_column = _columns_of(gallery, len(self._all))
        shared = torch.zeros(len(queries), self.n_gallery, dtype=torch.float64)
        start, _, _ = self._sets
        for row, query in enumerate(queries.tolist()):
            own = slice(int(start[query]), int(start[query + 1]))
            for item, weight in zip(self._sets[1][own].tolist(), self._sets[2][own], strict=True):
                members = slice(int(by_column[0][item]), int(by_column[0][item + 1]))
                shared[row].index_add_(0, by_column[1][members], by_column[2][members].clamp(max=weight))
        return shared

    def _original(self, rows: Tensor) -> Tensor:
        squared = (2.0 - 2.0 * self._cosines(rows)).clamp(min=0)
        scaled: Tensor = squared / self._largest[rows, None]
        return scaled

    def _cosines(self, rows: Tensor) -> Tensor:
        with full_precision(self._all.device.type):
            cosines = self._all[rows] @ self._all.T
        return cosines.double()

    def _largest_distances(self) -> Tensor:
        largest = torch.empty(len(self._all), dtype=torch.float64)
        for rows in torch.split(torch.arange(len(self._all)), BLOCK):
            squared = 2.0 - 2.0 * self._cosines(rows)
            largest[rows] = squared.amax(dim=1).clamp(min=torch.finfo(torch.float32).eps)
        return largest

    def _encoded(self) -> Pairs:
        """Each item's set of reciprocal neighbours with Gaussian weights, end to end."""
        whole = self._reciprocal(self._k1)
        half = self._reciprocal(round(self._k1 / 2))
        rows = track(range(len(self._all)), len(self._all), "comparing neighbours", self.show_progress)
        sets = [self._expanded(row, whole, half) for row in rows]
        columns = torch.cat(sets)
        counts = torch.tensor([len(one) for one in sets])
        owners = torch.arange(len(sets)).repeat_interleave(counts)
        weights = torch.exp(-self._distances_of(owners, columns))
        weights /= torch.zeros(len(sets), dtype=torch.float64).index_add_(0, owners, weights)[owners]
        encoded = _packed(owners, columns, weights, len(sets))
        return encoded if self._k2 == 1 else self._averaged(encoded)

    def _reciprocal(self, k: int) -> list[Tensor]:
        """Neighbours of each item that have it among theirs; itself is one of them."""
        near = self._neighbours[:, : k + 1]
        sets: list[Tensor] = []
        for rows in torch.split(torch.arange(len(near)), BLOCK):
            mutual = (near[near[rows]] == rows[:, None, None]).any(dim=2)
            sets += [items[keep] for items, keep in zip(near[rows], mutual, strict=True)]
        return sets

    def _expanded(self, row: int, whole: list[Tensor], half: list[Tensor]) -> Tensor:
        own = whole[row]
        parts = [own]
        for candidate in own.tolist():
            theirs = half[candidate]
            if 3 * int(torch.isin(theirs, own).sum()) > 2 * len(theirs):
                parts.append(theirs)
        expanded: Tensor = torch.unique(torch.cat(parts))
        return expanded

    def _distances_of(self, owners: Tensor, columns: Tensor) -> Tensor:
        parts = []
        for left, right in zip(torch.split(owners, 2**16), torch.split(columns, 2**16), strict=True):
            cosine = torch.linalg.vecdot(self._all[left].double(), self._all[right].double())
            parts.append((2.0 - 2.0 * cosine).clamp(min=0) / self._largest[left])
        return torch.cat(parts)

    def _averaged(self, encoded: Pairs) -> Pairs:
        """Each set becomes the mean of those of the item's ``k2`` nearest, itself included."""
        near = self._neighbours[:, : self._k2]
        owners, columns, weights = _members(encoded, near.reshape(-1))
        owners = owners.div(near.shape[1], rounding_mode="floor")
        size = len(self._all)
        keys, inverse = torch.unique(owners * size + columns, return_inverse=True)
        summed = torch.zeros(len(keys), dtype=torch.float64).index_add_(0, inverse, weights / near.shape[1])
        return _packed(keys.div(size, rounding_mode="floor"), keys % size, summed, size)


def reranked(model: ReciprocalReranking) -> Iterator[tuple[Tensor, Tensor]]:
    """Query numbers and their scores, higher is nearer, some at a time."""
    blocks = torch.split(torch.arange(model.n_queries), BLOCK)
    for queries in track(blocks, model.n_queries, "re-ranking", model.show_progress, size=BLOCK):
        yield queries, -model.distances(queries)


def _with_itself_first(rows: Tensor, k: int) -> Int64[Tensor, "rows k"]:
    own = torch.arange(len(rows))
    if k == 1:
        return own[:, None]
    others = top_k(rows, rows, k=k - 1, distance="dot", exclude=own)[1]
    return torch.cat([own[:, None], others], dim=1)


def _packed(owners: Tensor, columns: Tensor, weights: Tensor, size: int) -> Pairs:
    counts = torch.bincount(owners, minlength=size)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]), columns, weights


def _members(packed: Pairs, rows: Tensor) -> Pairs:
    """Positions in ``rows``, columns and weights of the sets of these rows."""
    start, columns, weights = packed
    counts = start[rows + 1] - start[rows]
    place = torch.arange(len(rows)).repeat_interleave(counts)
    offset = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts)[place]
    taken = start[rows][place] + offset
    return place, columns[taken], weights[taken]


def _rows_of(packed: Pairs, rows: Tensor) -> Pairs:
    return _members(packed, rows)


def _columns_of(members: Pairs, size: int) -> Pairs:
    """Sets turned round: for each item the rows that hold it."""
    owners, columns, weights = members
    order = columns.argsort(stable=True)
    return _packed(columns[order], owners[order], weights[order], size)
