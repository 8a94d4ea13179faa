"""Exact retrieval over a whole data set, from the embeddings of its batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from simtrain.errors import ConfigError, DataError, nearest
from simtrain.evaluation.base_metric import BaseMetric
from simtrain.evaluation.embedding_store import STORE_BUDGET, EmbeddingStore
from simtrain.evaluation.evaluator import embeddings_of
from simtrain.evaluation.process_group import (
    by_first_process,
    gathered_chunks,
    n_processes,
    objects_of_all,
    process_rank,
)
from simtrain.evaluation.retrieval import COUNTS
from simtrain.metrics import retrieval_scores
from simtrain.metrics.formulas import Denominator
from simtrain.metrics.unmatched import Empty
from simtrain.metrics.vectors import unit_rows
from simtrain.registry import metrics

#: Key of ``dataset_meta``: item number → number of the first item that is equal to it.
SAME_ITEMS = "same_items"


@metrics.register_module()
class SetRetrieval(BaseMetric):
    """Retrieval figures of a data set whose embeddings come in batches: those of :func:`simtrain.evaluate`.

    Group batches: each item searches all others. Pair and triplet batches: each distinct query searches the distinct
    documents. Items that come twice (a distributed sampler repeats some) are told by the number that simtrain's loaders
    give them, and count once. Embeddings lie in memory up to a budget and in a temporary file beyond it; of several
    processes the first one has them all, and measures.

    Args:
        k: Depths of the metrics at k.
        names: Figures to give; default: all.
        distance: ``"cosine"``, ``"dot"`` or ``"euclidean"``.
        denominator: Divisor of ``map@k``, see :func:`simtrain.metrics.retrieval_report`.
        empty: What to do about queries without a relevant item: ``"skip"``, ``"zero"`` or ``"error"``.
        memory_budget: Bytes of embeddings to hold in memory, default 1 GiB.
        prefix: Put before the figures' names, with a slash.

    Attributes:
        scores: Metric name → value for each query, of the last evaluation; empty but in the first process.

    Raises:
        ConfigError: A name, the distance or an option is unknown, or the budget is not positive.

    Example:
        >>> metric = SetRetrieval(k=1, names=["precision@1", "mrr"])
        >>> results = {"embeddings": torch.eye(2).repeat(2, 1), "targets": {"groups": torch.tensor([0, 1, 0, 1])}}
        >>> metric.process(None, results)
        >>> metric.evaluate(size=4)
        {'precision@1': 1.0, 'mrr': 1.0}
    """

    def __init__(
        self,
        k: int | Sequence[int] = (1, 5, 10),
        names: Sequence[str] | None = None,
        *,
        distance: str = "cosine",
        denominator: Denominator = "min_k_relevant",
        empty: Empty = "skip",
        memory_budget: int = STORE_BUDGET,
        prefix: str | None = None,
    ) -> None:
        super().__init__(prefix)
        self.k = k if isinstance(k, int) else tuple(k)
        self.distance, self.memory_budget = distance, memory_budget
        self.options: dict[str, Any] = {"k": self.k, "denominator": denominator, "empty": empty}
        # What is wrong shows now, and not after the first epoch.
        tried = retrieval_scores(torch.eye(2), torch.zeros(2).long(), distance=distance, **self.options)
        known = [name for name in tried if name not in COUNTS]
        for name in names or ():
            if name not in known:
                raise ConfigError(f"SetRetrieval has no figure {name!r}; {nearest(name, known)}")
        self.names = None if names is None else list(names)
        self.scores: dict[str, Tensor] = {}
        self._kind: str | None = None
        self.reset()

    def process(self, data_batch: Any, data_samples: Any) -> None:
        """Keep the embeddings and targets of a batch.

        Raises:
            DataError: The results have no embeddings or targets, or these are of another kind than those before.
        """
        embeddings, targets = embeddings_of(data_samples, type(self).__name__)
        kind = "pairs" if "pairs" in targets else "groups" if "groups" in targets else None
        if kind is None or self._kind not in (None, kind):
            wanted = self._kind or "groups or pairs"
            raise DataError(f"SetRetrieval measures batches of {wanted}, got the targets {sorted(targets)}")
        self._kind = kind
        items = self._items(targets, len(embeddings), kind)
        rows = embeddings.detach().float()
        # Unit rows and dot products are the cosine: nothing else has to be made of all rows later.
        self._store.add(unit_rows(rows.cpu()) if self.distance == "cosine" else rows)
        self._numbers.append(items)
        if kind == "groups":
            self._links.append(torch.stack([items, targets["groups"].cpu().long()], dim=1))
            return
        pairs = items[targets["pairs"].cpu()]
        labels = targets.get("labels", torch.ones(len(pairs))).cpu()
        self._links.append(torch.cat([pairs, (labels > 0).long()[:, None]], dim=1))

    def evaluate(self, size: int) -> dict[str, float]:
        """Measure what was collected, and forget it; see :meth:`BaseMetric.evaluate`."""
        kind = self._common_kind()
        measure = self._groups if kind == "groups" else self._pairs
        collected = self._gathered(kind)
        try:
            return self._named(by_first_process(lambda: self._figures(measure(*collected, size))))
        finally:
            self.reset()

    def reset(self) -> None:
        """Forget what was collected; the scores of the last evaluation stay."""
        super().reset()
        self._store = EmbeddingStore(self.memory_budget)
        self._numbers: list[Tensor] = []
        self._links: list[Tensor] = []
        self._kind = None
        self._is_numbered = True

    def _common_kind(self) -> str:
        """Kind of the batches of all processes; some may have none."""
        facts = [(kind, numbered) for kind, numbered in objects_of_all((self._kind, self._is_numbered)) if kind]
        kinds = sorted({kind for kind, _ in facts})
        if len(kinds) != 1:
            self.reset()
            found = "no batch was processed" if not kinds else f"processes have batches of {' and '.join(kinds)}"
            raise DataError(f"SetRetrieval has nothing to measure: {found} since the last evaluation")
        self._is_numbered = all(numbered for _, numbered in facts)
        return kinds[0]

    def _figures(self, scores: dict[str, Tensor]) -> dict[str, float]:
        self.scores = {name: values for name, values in scores.items() if name not in COUNTS}
        means = {name: float(values.mean()) if len(values) else 0.0 for name, values in self.scores.items()}
        return {name: means[name] for name in self.names or means}

    def _items(self, targets: Mapping[str, Tensor], n_rows: int, kind: str) -> Int64[Tensor, " rows"]:
        if "items" in targets:
            return targets["items"].cpu().long()
        self._is_numbered = False
        world = n_processes()
        if world > 1 and kind == "pairs":
            raise DataError(
                "in several processes SetRetrieval needs the target 'items' (a number for each item, as simtrain's "
                "loaders give) to tell which pairs a distributed sampler has repeated"
            )
        # As a distributed sampler deals them out: in turn.
        return (len(self._store) + torch.arange(n_rows)) * world + process_rank()

    def _gathered(self, kind: str) -> tuple[EmbeddingStore, Tensor, Tensor]:
        width = 2 if kind == "groups" else 3
        numbers = torch.cat([torch.empty(0, dtype=torch.long), *self._numbers])
        links = torch.cat([torch.empty(0, width, dtype=torch.long), *self._links])
        if n_processes() == 1:
            return self._store, numbers, links
        keep = process_rank() == 0
        all_numbers, all_links = (_joined(part, keep) for part in (numbers, links))
        store, ranks = EmbeddingStore(self.memory_budget), []
        for rank, chunk in gathered_chunks(self._store.rows()):
            if keep:
                store.add(chunk)
                ranks.append(torch.full((len(chunk),), rank))
        # Rows come chunk by chunk, numbers process by process.
        by_rank = torch.cat([torch.empty(0, dtype=torch.long), *ranks]).argsort(stable=True)
        in_order = torch.empty_like(all_numbers)
        in_order[by_rank] = all_numbers
        return store, in_order, all_links

    def _groups(self, store: EmbeddingStore, numbers: Tensor, links: Tensor, size: int) -> dict[str, Tensor]:
        if self._is_numbered and size > 0:
            # An item that comes twice in one batch has its number and that number plus the data set's size.
            numbers, links = numbers % size, torch.stack([links[:, 0] % size, links[:, 1]], dim=1)
        first = _first_places(numbers)
        if not self._is_numbered and n_processes() > 1 and size > 0:
            first = first[:size]
        # Links are in the order of the processes, rows in that of their chunks: both know the item's number.
        linked = _first_places(links[:, 0])
        groups = links[linked[torch.searchsorted(links[linked, 0].contiguous(), numbers[first])], 1]
        rows = store.rows() if torch.equal(first, torch.arange(len(store))) else store.take(first).rows()
        return retrieval_scores(rows, groups, distance=self._final_distance, **self.options)

    def _pairs(self, store: EmbeddingStore, numbers: Tensor, links: Tensor, size: int) -> dict[str, Tensor]:
        same = self._same_items(numbers)
        queries = torch.unique(links[:, 0])
        documents = torch.unique(links[:, 1])
        query_of, query_items = _representatives(queries, same)
        document_of, document_items = _representatives(documents, same)
        first = _first_places(numbers)
        known = numbers[first]
        query_rows = first[torch.searchsorted(known, query_items)]
        document_rows = first[torch.searchsorted(known, document_items)]
        matching = links[links[:, 2] > 0]
        relevant = torch.stack(
            [
                query_of[torch.searchsorted(queries, matching[:, 0].contiguous())],
                document_of[torch.searchsorted(documents, matching[:, 1].contiguous())],
            ],
            dim=1,
        )
        return retrieval_scores(
            store.take(query_rows).rows(),
            gallery_embeddings=store.take(document_rows).rows(),
            relevant=relevant,
            distance=self._final_distance,
            **self.options,
        )

    def _same_items(self, numbers: Tensor) -> Tensor | None:
        same = None if self.dataset_meta is None else self.dataset_meta.get(SAME_ITEMS)
        fits = same is not None and self._is_numbered and (not len(numbers) or int(numbers.max()) < len(same))
        return same if fits else None

    @property
    def _final_distance(self) -> str:
        return "dot" if self.distance == "cosine" else self.distance


def _first_places(numbers: Int64[Tensor, " rows"]) -> Int64[Tensor, " distinct"]:
    """Where each number stands first, by ascending number."""
    ordered, places = numbers.sort(stable=True)
    is_first = torch.ones_like(ordered, dtype=torch.bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    return places[is_first]


def _representatives(
    numbers: Int64[Tensor, " distinct"], same: Tensor | None
) -> tuple[Int64[Tensor, " distinct"], Int64[Tensor, " items"]]:
    """For each number which of the distinct items it is, and for these a number that has an embedding."""
    heads = numbers if same is None else same[numbers]
    known, inverse = torch.unique(heads, return_inverse=True)
    # The first of equal items may not be among the batches of a limited run: any of them stands for it.
    member = torch.empty_like(known)
    member[inverse.flip(0)] = numbers.flip(0)
    return inverse, member


def _joined(rows: Tensor, keep: bool) -> Tensor:
    parts: dict[int, list[Tensor]] = {}
    for rank, chunk in gathered_chunks(rows):
        if keep:
            parts.setdefault(rank, []).append(chunk)
    return torch.cat([rows[:0], *(chunk for rank in sorted(parts) for chunk in parts[rank])])
