"""A search with judgements: texts to search with, texts to search in, and how relevant what is to which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from simtrain.cache import CachedModel
from simtrain.data import SimilarityPairDataset, SimilarityPairSample
from simtrain.data.query_gallery import PairExclusion
from simtrain.errors import ConfigError, DataError
from simtrain.evaluation.query_lists import Qrels, Run
from simtrain.metrics import top_k
from simtrain.metrics.similarities import Distance
from simtrain.metrics.vectors import Embeddings
from simtrain.models import SimilarityModel


@dataclass(frozen=True, eq=False)
class JudgedSearch:
    """Queries, a corpus and judgements, each known by its name; :func:`simtrain.evaluate` takes it as it is.

    ``evaluate`` measures it over the whole corpus, NDCG by the grades; :func:`search_run` and
    :func:`~simtrain.evaluation.run_metrics` give the figures of BEIR and TREC, with cut-offs and their order of ties.

    Attributes:
        query_ids: Name of each query, each once.
        queries: The queries.
        document_ids: Name of each document, each once.
        documents: The corpus.
        qrels: How relevant which document is to which query.
        skip_own: Whether a query never finds the document of its own name, as BEIR has it.

    Raises:
        DataError: There is no query or no document, names are missing or there twice, or a judged query is unknown.

    Example:
        >>> test = JudgedSearch(["q"], ["how old"], ["d1", "d2"], ["age()", "max()"], Qrels.from_dict({"q": {"d1": 2}}))
        >>> test.relevant().tolist()
        [[0, 0]]
    """

    query_ids: Sequence[str]
    queries: Sequence[Any] = field(repr=False)
    document_ids: Sequence[str] = field(repr=False)
    documents: Sequence[Any] = field(repr=False)
    qrels: Qrels = field(repr=False)
    skip_own: bool = True

    def __post_init__(self) -> None:
        for names, items, what in (
            (self.query_ids, self.queries, "query"),
            (self.document_ids, self.documents, "document"),
        ):
            if not len(items) or len(names) != len(items):
                raise DataError(
                    f"got {len(names)} names of {what} items and {len(items)} items; give one each, and some"
                )
            if len(set(names)) != len(names):
                twice = Counter(names).most_common(1)[0][0]
                raise DataError(f"two {what} items are named {twice!r}; give each a name of its own")
        unknown = [name for name in self.qrels.query_ids if name not in self._query_rows]
        if unknown:
            raise DataError(f"{len(unknown)} judged queries have no text, such as {unknown[0]!r}")

    @cached_property
    def _query_rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.query_ids)}

    @cached_property
    def _document_rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.document_ids)}

    def relevant(self, grade: int = 1) -> Int64[Tensor, "pairs 2"]:
        """Rows of query and document that match: judged with this grade or a higher one, and in the corpus."""
        return self._judged(grade)[0]

    def gains(self, grade: int = 1) -> Float64[Tensor, " pairs"]:
        """Grade of each pair of :meth:`relevant`, which NDCG takes as its gain."""
        return self._judged(grade)[1]

    def _judged(self, grade: int) -> tuple[Tensor, Tensor]:
        queries = np.array([self._query_rows[name] for name in self.qrels.query_ids], dtype=np.int64)
        documents = np.array([self._document_rows.get(name, -1) for name in self.qrels.document_ids], dtype=np.int64)
        pairs = np.stack([queries[self.qrels.owners()], documents[self.qrels.documents]], axis=1)
        matching = (self.qrels.values >= grade) & (pairs[:, 1] >= 0)
        return torch.from_numpy(pairs[matching]), torch.from_numpy(self.qrels.values[matching].astype(np.float64))

    def pairs(self, grade: int = 1) -> SimilarityPairDataset:
        """Query and document of each match, to train with."""
        rows = self.relevant(grade).tolist()
        return SimilarityPairDataset([SimilarityPairSample(self.queries[q], self.documents[d]) for q, d in rows])

    @property
    def own_rows(self) -> Int64[Tensor, " queries"] | None:
        """Row of the document of each query's own name, -1 where there is none; None if it is searched like others."""
        rows = torch.tensor([self._document_rows.get(name, -1) for name in self.query_ids])
        return rows if self.skip_own and bool((rows >= 0).any()) else None

    @property
    def exclude(self) -> PairExclusion | None:
        """Which pairs of query and document do not count, as metrics take it; None where all do."""
        own = self.own_rows
        return None if own is None else PairExclusion([(own, torch.arange(len(self.documents)))])

    def run(
        self,
        query_embeddings: Embeddings,
        document_embeddings: Embeddings,
        depth: int = 1000,
        distance: Distance = "cosine",
    ) -> Run:
        """Search with embeddings: the nearest documents of each query, exact.

        Args:
            query_embeddings: Shape ``(queries, dim)``.
            document_embeddings: Shape ``(documents, dim)``.
            depth: How many documents to find for a query.
            distance: ``"cosine"``, ``"dot"`` or ``"euclidean"``.

        Raises:
            ConfigError: ``depth`` or ``distance`` is not accepted.
            DataError: There is not one embedding an item.
        """
        if depth < 1:
            raise ConfigError(f"depth is a positive integer, got {depth}")
        for given, items, what in (
            (query_embeddings, self.queries, "queries"),
            (document_embeddings, self.documents, "documents"),
        ):
            if len(given) != len(items):
                raise DataError(f"got {len(given)} embeddings for {len(items)} {what}; give one each")
        depth = min(depth, len(self.documents))
        scores, rows = top_k(query_embeddings, document_embeddings, depth, distance=distance, exclude=self.own_rows)
        found = (rows >= 0).cpu().numpy()
        start = np.concatenate([[0], found.sum(axis=1).cumsum()]).astype(np.int64)
        values = scores.double().cpu().numpy()[found]
        return Run(self.query_ids, self.document_ids, start, rows.cpu().numpy()[found], values)


def search_run(
    model: SimilarityModel | CachedModel,
    test: JudgedSearch,
    depth: int = 1000,
    *,
    batch_size: int = 32,
    show_progress: bool | None = None,
) -> Run:
    """Search a corpus with a model: queries encoded as queries, the corpus as documents, by cosine, exact.

    Args:
        model: The model.
        test: What to search with and in.
        depth: How many documents to find for a query.
        batch_size: Items a batch while encoding.
        show_progress: Show a progress bar; None shows one on a terminal for work of over a second.

    Returns:
        The run, for :func:`~simtrain.evaluation.run_metrics` and :func:`~simtrain.evaluation.write_run`.

    Example:
        >>> from simtrain.encoders import PrecomputedEncoder
        >>> from simtrain.heads import EmptyHead
        >>> model = SimilarityModel(PrecomputedEncoder(2), EmptyHead(2))
        >>> qrels = Qrels.from_dict({"q": {"d2": 1}})
        >>> test = JudgedSearch(["q"], [(1.0, 0.0)], ["d1", "d2"], [(0.0, 1.0), (3.0, 4.0)], qrels)
        >>> search_run(model, test, depth=1).to_dict()
        {'q': {'d2': 0.6...}}
    """
    options: dict[str, Any] = {"batch_size": batch_size, "to_numpy": False, "show_progress": show_progress}
    queries = model.encode_query(list(test.queries), **options)
    return test.run(queries, model.encode_document(list(test.documents), **options), depth)
