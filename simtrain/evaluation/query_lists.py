"""Documents with a number for each query, in columns: what a search found (a run), and what was judged (qrels)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from simtrain.errors import DataError

Lists = TypeVar("Lists", bound="QueryLists")


@dataclass(frozen=True, eq=False)
class QueryLists:
    """Lists of documents, stored end to end: a fraction of the memory that dicts of dicts take.

    Attributes:
        query_ids: Name of each query, each once.
        document_ids: Names of the documents, each once.
        start: Where each query's list starts, and where the last one ends, int64, shape ``(queries + 1,)``.
        documents: Place of each entry's document in ``document_ids``, int64, shape ``(entries,)``.
        values: Its score or grade, shape ``(entries,)``.
    """

    query_ids: Sequence[str]
    document_ids: Sequence[str] = field(repr=False)
    start: NDArray[np.int64] = field(repr=False)
    documents: NDArray[np.int64] = field(repr=False)
    values: NDArray[Any] = field(repr=False)

    #: Number format of the values.
    DTYPE: ClassVar[type] = np.float64

    def __len__(self) -> int:
        return len(self.documents)

    @classmethod
    def from_dict(cls: type[Lists], lists: Mapping[str, Mapping[str, Any]]) -> Lists:
        """Take what pytrec_eval and BEIR take: query → document → number.

        Raises:
            DataError: A number is NaN, or a grade is no integer.
        """
        counts = [len(found) for found in lists.values()]
        names = dict.fromkeys(chain.from_iterable(lists.values()))
        codes = dict(zip(names, range(len(names)), strict=True))
        documents = np.fromiter(
            map(codes.__getitem__, chain.from_iterable(lists.values())), dtype=np.int64, count=sum(counts)
        )
        numbers = np.array(list(chain.from_iterable(found.values() for found in lists.values())), dtype=np.float64)
        owners = np.repeat(np.arange(len(counts)), counts)
        values = cls._checked(numbers, lambda row: f"query {list(lists)[owners[row]]!r}")
        return cls(list(lists), list(names), _starts(counts), documents, values)

    @classmethod
    def from_columns(
        cls: type[Lists], queries: Sequence[str], documents: Sequence[str], numbers: NDArray[np.float64]
    ) -> Lists:
        """Take a query, a document and a number for each entry; the entries of a query need not be together.

        Raises:
            DataError: A pair of query and document is there twice, a number is NaN, or a grade is no integer.
        """
        builder = ListBuilder(cls)
        builder.add(queries, documents, numbers)
        return builder.lists()

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Query → document → number, as pytrec_eval and BEIR take it."""
        return {query: dict(zip(found, values.tolist(), strict=True)) for query, found, values in self.lists()}

    def lists(self) -> Iterator[tuple[str, list[str], NDArray[Any]]]:
        """Each query with the names of its documents and their numbers."""
        for query, (first, last) in zip(self.query_ids, zip(self.start[:-1], self.start[1:], strict=True), strict=True):
            yield query, [self.document_ids[row] for row in self.documents[first:last]], self.values[first:last]

    def owners(self) -> NDArray[np.int64]:
        """Place of each entry's query in ``query_ids``, shape ``(entries,)``."""
        return np.repeat(np.arange(len(self.query_ids)), np.diff(self.start))

    @classmethod
    def _checked(cls, numbers: NDArray[np.float64], place: Any) -> NDArray[Any]:
        wrong = np.isnan(numbers)
        if cls.DTYPE is np.int64:
            wrong |= ~np.isfinite(numbers)
            wrong |= ~wrong & (np.floor(numbers) != numbers)
        if wrong.any():
            row = int(wrong.argmax())
            wanted = "an integer" if cls.DTYPE is np.int64 else "a number"
            raise DataError(f"{place(row)}: {cls._noun()} should be {wanted}, got {float(numbers[row])}")
        return numbers.astype(cls.DTYPE)

    @classmethod
    def _noun(cls) -> str:
        return "a grade" if cls.DTYPE is np.int64 else "a score"


class ListBuilder(Generic[Lists]):
    """Gathers entries piece by piece; names are kept once, so that files larger than memory's strings can be read.

    Args:
        kind: What to build.
    """

    def __init__(self, kind: type[Lists]) -> None:
        self.kind = kind
        self._queries = _counting()
        self._documents = _counting()
        self._parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]] = []

    def add(self, queries: Sequence[str], documents: Sequence[str], numbers: Any) -> None:
        """Add entries.

        Raises:
            DataError: A number is NaN, or a grade is no integer.
        """
        values = self.kind._checked(np.asarray(numbers, dtype=np.float64), lambda row: f"query {queries[row]!r}")
        self._parts.append((_codes(queries, self._queries), _codes(documents, self._documents), values))

    def lists(self) -> Lists:
        """All entries by query.

        Raises:
            DataError: A pair of query and document is there twice.
        """
        parts = self._parts or [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, self.kind.DTYPE))]
        owners, items, values = (np.concatenate(column) for column in zip(*parts, strict=True))
        queries, documents = list(self._queries), list(self._documents)
        twice = _repeated(owners * len(documents) + items)
        if twice is not None:
            raise DataError(f"query {queries[owners[twice]]!r} has the document {documents[items[twice]]!r} twice")
        start = _starts(np.bincount(owners, minlength=len(queries)))
        if np.any(owners[1:] < owners[:-1]):
            order = np.argsort(owners, kind="stable")
            items, values = items[order], values[order]
        return self.kind(queries, documents, start, items, values)


class Run(QueryLists):
    """What a search found for each query, with its scores; higher is better.

    Example:
        >>> run = Run.from_dict({"q1": {"d2": 0.5, "d1": 0.9}})
        >>> run.query_ids, run.document_ids, run.values.tolist()
        (['q1'], ['d2', 'd1'], [0.5, 0.9])
    """


class Qrels(QueryLists):
    """Which documents were judged for each query, with their grades: 0 is not relevant, higher is better.

    Example:
        >>> Qrels.from_columns(["q1", "q2", "q1"], ["d1", "d1", "d3"], np.array([2.0, 0.0, 1.0])).to_dict()
        {'q1': {'d1': 2, 'd3': 1}, 'q2': {'d1': 0}}
    """

    DTYPE = np.int64


def as_run(run: Run | Mapping[str, Mapping[str, Any]]) -> Run:
    """A run, of a run or of a dict of dicts."""
    return run if isinstance(run, Run) else Run.from_dict(run)


def as_qrels(qrels: Qrels | Mapping[str, Mapping[str, Any]]) -> Qrels:
    """Judgements, of judgements or of a dict of dicts."""
    return qrels if isinstance(qrels, Qrels) else Qrels.from_dict(qrels)


def _starts(counts: Any) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


def _repeated(keys: NDArray[np.int64]) -> int | None:
    """Row of an entry whose key was there before."""
    ordered = np.sort(keys)
    if not np.any(ordered[1:] == ordered[:-1]):
        return None
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    return int(order[1:][same].min())


def _counting() -> defaultdict[str, int]:
    """Names that are numbered when they are first asked for."""
    return defaultdict(count().__next__)


def _codes(names: Sequence[str], known: defaultdict[str, int]) -> NDArray[np.int64]:
    return np.fromiter(map(known.__getitem__, names), np.int64, len(names))
