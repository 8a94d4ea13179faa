"""At which ranks of a run the judged documents stand, with ties broken as trec_eval breaks them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simtrain.errors import DataError
from simtrain.evaluation.query_lists import Qrels, Run

_UNJUDGED = np.iinfo(np.int64).min


@dataclass(frozen=True, eq=False)
class JudgedRanks:
    """What all metrics of runs can be computed of; one entry a judged document that was found.

    Attributes:
        n_queries: Number of judged queries.
        owner: Query of each entry, ascending, int64, shape ``(entries,)``.
        rank: Its rank, from 1, ascending within a query.
        grade: Its grade, not negative.
        judged_owner: Query of each judgement, ascending, whether the document was found or not.
        judged_grade: Its grade, not negative, descending within a query.
    """

    n_queries: int
    owner: NDArray[np.int64]
    rank: NDArray[np.int64]
    grade: NDArray[np.int64]
    judged_owner: NDArray[np.int64]
    judged_grade: NDArray[np.int64]

    def judged_count(self, low: int, high: float | int = np.inf) -> NDArray[np.int64]:
        """Judged documents of each query with a grade from ``low`` to below ``high``."""
        inside = (self.judged_grade >= low) & (self.judged_grade < high)
        return np.bincount(self.judged_owner[inside], minlength=self.n_queries)


@dataclass(frozen=True, eq=False)
class _Found:
    """What was found for one query: all scores, and the judged documents among it."""

    query: int
    scores: NDArray[np.float32]
    names: Callable[[], Iterable[str]]
    judged_scores: NDArray[np.float32]
    judged_names: Sequence[str]
    grades: NDArray[np.int64]

    def ranks(self) -> NDArray[np.int64]:
        """Rank of each judged document."""
        # Few documents are judged: their ranks are counted, which a sort of bare scores makes cheap.
        ordered = np.sort(self.scores)
        first = np.searchsorted(ordered, self.judged_scores)
        after = np.searchsorted(ordered, self.judged_scores, side="right")
        ranks: NDArray[np.int64] = len(ordered) - after + 1
        tied = np.flatnonzero(after - first > 1)
        if len(tied):
            ranks[tied] += self._places_among_equals(tied.tolist(), first.tolist(), after.tolist())
        return ranks

    def _places_among_equals(self, rows: list[int], first: list[int], after: list[int]) -> list[int]:
        """How many documents of the same score come before, for some rows of the judged documents."""
        names, order = list(self.names()), np.argsort(self.scores).tolist()
        places: dict[int, dict[str, int]] = {}
        for row in rows:
            if first[row] not in places:
                equals = sorted([names[other] for other in order[first[row] : after[row]]], reverse=True)
                places[first[row]] = dict(zip(equals, range(len(equals)), strict=True))
        return [places[first[row]][self.judged_names[row]] for row in rows]


def judged_ranks(run: Run | Mapping[str, Mapping[str, Any]], qrels: Qrels) -> JudgedRanks:
    """Find the ranks of judged documents: by score, descending, equal ones by name, descending.

    Scores are compared as float32, for trec_eval keeps them so. Documents with a negative grade count as not judged.
    A query of ``qrels`` that the run lacks has no entries; one that ``qrels`` lacks is left out.

    Raises:
        DataError: A score is NaN.

    Example:
        >>> ranks = judged_ranks({"q": {"a": 0.5, "b": 0.5, "c": 0.9}}, Qrels.from_dict({"q": {"a": 1, "b": 2}}))
        >>> ranks.rank.tolist(), ranks.grade.tolist()
        ([2, 3], [2, 1])
    """
    owners: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    ranks, grades = owners.copy(), owners.copy()
    for found in _found_in_columns(run, qrels) if isinstance(run, Run) else _found_in_dicts(run, qrels):
        rank = found.ranks()
        order = np.argsort(rank)
        owners.append(np.full(len(rank), found.query))
        ranks.append(rank[order])
        grades.append(found.grades[order])
    owner, grade = qrels.owners(), qrels.values
    best_first = np.lexsort((-grade, owner))
    judged = best_first[grade[best_first] >= 0]
    joined = [np.concatenate(part) for part in (owners, ranks, grades)]
    return JudgedRanks(len(qrels.query_ids), joined[0], joined[1], joined[2], owner[judged], grade[judged])


def _found_in_columns(run: Run, qrels: Qrels) -> Iterator[_Found]:
    places = {query: place for place, query in enumerate(run.query_ids)}
    number = {name: code for code, name in enumerate(run.document_ids)}
    codes = np.fromiter((number.get(name, -1) for name in qrels.document_ids), np.int64, len(qrels.document_ids))
    scores = _as_float32(run.values)
    grade_of = np.full(len(number) + 1, _UNJUDGED)  # the last place takes documents that no query found
    for query, name in enumerate(qrels.query_ids):
        if name not in places:
            continue
        judged = slice(qrels.start[query], qrels.start[query + 1])
        span = slice(run.start[places[name]], run.start[places[name] + 1])
        known, documents = codes[qrels.documents[judged]], run.documents[span]
        grade_of[known] = qrels.values[judged]
        grades = grade_of[documents]
        grade_of[known] = _UNJUDGED
        rows = np.flatnonzero(grades >= 0)
        if len(rows):
            names = partial(_named, run.document_ids, documents)
            mine = _named(run.document_ids, documents[rows])
            yield _Found(query, scores[span], names, scores[span][rows], mine, grades[rows])


def _found_in_dicts(run: Mapping[str, Mapping[str, Any]], qrels: Qrels) -> Iterator[_Found]:
    for query, (name, documents, grades) in enumerate(qrels.lists()):
        found = run.get(name, {})
        rows = [row for row, document in enumerate(documents) if document in found and grades[row] >= 0]
        if not rows:
            continue
        names = [documents[row] for row in rows]
        scores = _as_float32(np.fromiter(found.values(), np.float64, len(found)))
        if np.isnan(scores).any():
            raise DataError(f"query {name!r}: the score of {list(found)[int(np.isnan(scores).argmax())]!r} is NaN")
        mine = _as_float32(np.array([found[document] for document in names], dtype=np.float64))
        yield _Found(query, scores, found.keys, mine, names, grades[rows])


def _named(document_ids: Sequence[str], documents: NDArray[np.int64]) -> list[str]:
    return [document_ids[row] for row in documents.tolist()]


def _as_float32(scores: NDArray[np.float64]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # beyond float32 is infinite in trec_eval too
        return scores.astype(np.float32)
