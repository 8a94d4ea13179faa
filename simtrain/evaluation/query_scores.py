"""Metrics query by query, with the queries' names: what two systems are compared by."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simtrain.errors import DataError
from simtrain.evaluation.text_files import draft

if TYPE_CHECKING:
    from simtrain.evaluation.retrieval import RetrievalResult

FORMAT = "simtrain.query_scores/1"


@dataclass(frozen=True, eq=False)
class QueryScores:
    """A score for each query in each metric.

    Attributes:
        query_ids: Name of each query, each once.
        scores: Metric name → its value for each query, float64, shape ``(queries,)``.

    Raises:
        DataError: A metric has not one number a query, a number is not finite, or a query is there twice.

    Example:
        >>> QueryScores(["q1", "q2"], {"mrr": [1.0, 0.5]}).means
        {'mrr': 0.75}
    """

    query_ids: Sequence[str]
    scores: Mapping[str, Any] = field(repr=False)

    def __post_init__(self) -> None:
        if len(set(self.query_ids)) != len(self.query_ids):
            raise DataError("a query is there twice; give each query a name of its own")
        object.__setattr__(self, "scores", {name: self._checked(name, given) for name, given in self.scores.items()})

    def __len__(self) -> int:
        return len(self.query_ids)

    @property
    def means(self) -> dict[str, float]:
        """Metric name → mean over the queries."""
        return {name: float(values.mean()) for name, values in self.scores.items()}

    def rows(self, query_ids: Sequence[str]) -> QueryScores:
        """The same for some queries, in the order that is given."""
        place = {query: row for row, query in enumerate(self.query_ids)}
        order = [place[query] for query in query_ids]
        return QueryScores(list(query_ids), {name: values[order] for name, values in self.scores.items()})

    def save(self, path: str | Path) -> None:
        """Write them to a JSON file, all or nothing; numbers are written in full."""
        values = {name: numbers.tolist() for name, numbers in self.scores.items()}
        content = {"format": FORMAT, "metrics": self.means, "query_ids": list(self.query_ids), "scores": values}
        with draft(Path(path)) as file:
            json.dump(content, file)
            file.write("\n")

    @classmethod
    def load(cls, path: str | Path) -> QueryScores:
        """Read what :meth:`save` wrote; any JSON object with ``query_ids`` and ``scores`` will do.

        Raises:
            DataError: The file is missing or holds something else.
        """
        source = Path(path)
        if not source.is_file():
            raise DataError(f"there is no file {str(source)!r} to read scores from")
        try:
            content = json.loads(source.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{source} is no JSON: {error}") from None
        if not isinstance(content, dict) or not isinstance(content.get("scores"), dict) or not content["scores"]:
            raise DataError(
                f"{source} has no scores by query; `simtrain evaluate --scores` and QueryScores.save write such files"
            )
        names = content.get("query_ids")
        if not isinstance(names, list):
            raise DataError(f"{source} has scores, but no 'query_ids' that say which query each belongs to")
        try:
            return cls([str(name) for name in names], content["scores"])
        except DataError as error:
            raise DataError(f"{source}: {error}") from None

    def _checked(self, name: str, given: Any) -> NDArray[np.float64]:
        try:
            values = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError):
            raise DataError(f"the scores of {name!r} should be numbers, one a query") from None
        if values.shape != (len(self.query_ids),):
            raise DataError(f"{name!r} should have {len(self.query_ids)} scores, one a query, got {values.shape}")
        if not np.isfinite(values).all():
            raise DataError(f"{name!r} is not finite for query {self.query_ids[int(np.isfinite(values).argmin())]!r}")
        return values


def scores_by_query(result: RetrievalResult, queries: Sequence[Any], names: Sequence[str] | None = None) -> QueryScores:
    """An evaluation's scores with the queries' names.

    Args:
        result: Of :func:`simtrain.evaluate`.
        queries: All queries of the test set, also those without a match, in its order.
        names: What they are called; default: :func:`query_names`.
    """
    names = query_names(queries) if names is None else names
    rows = range(result.n_queries) if result.query_rows is None else result.query_rows.tolist()
    return QueryScores([names[row] for row in rows], {name: s.cpu().numpy() for name, s in result.scores.items()})


def query_names(queries: Sequence[Any]) -> list[str]:
    """Names for queries that have none: their texts, or their numbers where they are no texts or not distinct.

    Example:
        >>> query_names(["how old", "coffee"]), query_names([(1.0, 0.0), (0.0, 1.0)])
        (['how old', 'coffee'], ['0', '1'])
    """
    if all(isinstance(query, str) for query in queries) and len(set(queries)) == len(queries):
        return list(queries)
    return [str(row) for row in range(len(queries))]
