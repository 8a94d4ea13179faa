"""Relevance in grades: some gallery items matter more to a query than others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int, Int64
from numpy.typing import NDArray
from torch import Tensor

from simtrain.errors import ConfigError, DataError
from simtrain.metrics.relevance import PairRelevance, Relevant, as_pairs

Grades = Tensor | NDArray[Any] | Sequence[Any]


class GradedRelevance(PairRelevance):
    """Items with a grade above 0 are relevant, and the grade is their gain.

    Args:
        pairs: ``(query index, gallery index)``, shape ``(pairs, 2)``.
        grades: Grade of each pair, shape ``(pairs,)``.
        n_queries: Number of queries.
        n_gallery: Size of the gallery.

    Raises:
        DataError: An index is out of range, a grade is not finite, there is not one a pair, or a pair has two.

    Example:
        >>> relevance = GradedRelevance(torch.tensor([[0, 4], [0, 2], [0, 1]]), torch.tensor([1, 3, 0]), 1, 5)
        >>> relevance.columns(torch.tensor([0])).tolist(), relevance.grades(torch.tensor([0])).tolist()
        ([[2, 4]], [[3.0, 1.0]])
    """

    def __init__(self, pairs: Int[Tensor, "pairs 2"], grades: Tensor, n_queries: int, n_gallery: int) -> None:
        grades = _checked_grades(grades, len(pairs))
        kept = grades > 0
        super().__init__(pairs, n_queries, n_gallery)  # out-of-range indices are errors, whatever their grade
        super().__init__(pairs[kept], n_queries, n_gallery)
        wanted = pairs[kept, 0].long() * n_gallery + pairs[kept, 1].long()
        at = torch.searchsorted(self._keys, wanted)
        self._grades = grades.new_zeros(len(self._keys) + 1)
        self._grades[at] = grades[kept]
        if bool((self._grades[at] != grades[kept]).any()):
            row = int((self._grades[at] != grades[kept]).nonzero()[0, 0])
            query, item = pairs[kept][row].tolist()
            raise DataError(f"relevant= gives query {query} and gallery item {item} two grades; give one")

    def gains(self, queries: Int64[Tensor, " rows"], items: Int64[Tensor, "rows k"]) -> Float64[Tensor, "rows k"]:
        """Grade of each item for its row's query; 0 where it is not relevant."""
        wanted = queries[:, None] * self._n_gallery + items
        grades = self._grades[torch.searchsorted(self._keys, wanted)]
        return grades * self.contains(queries, items)

    def grades(self, queries: Int64[Tensor, " rows"]) -> Float64[Tensor, "rows most"]:
        """Grades of the items that :meth:`columns` lists; 0 where the list is padded."""
        return self.gains(queries, self.columns(queries))


def as_graded(relevant: Relevant, grades: Grades | None, n_queries: int) -> tuple[Int64[Tensor, "pairs 2"], Tensor]:
    """Bring graded relevance to pairs and their grades.

    Args:
        relevant: A sequence with, for each query, a mapping of gallery index to grade; or, with ``grades``, rows
            ``(query index, gallery index)`` of shape ``(pairs, 2)``.
        grades: Grade of each row of ``relevant``; None where the mappings hold them.
        n_queries: Number of queries.

    Returns:
        Pairs and float64 grades.

    Raises:
        ConfigError: Both mappings and ``grades`` are given, or lists without a fixed order of their pairs.
        DataError: See :func:`~simtrain.metrics.relevance.as_pairs`; a grade is no number.

    Example:
        >>> pairs, grades = as_graded([{3: 2, 0: 1}, {}], None, n_queries=2)
        >>> pairs.tolist(), grades.tolist()
        ([[0, 3], [0, 0]], [2.0, 1.0])
    """
    if has_mappings(relevant):
        if grades is not None:
            raise ConfigError("relevant= holds grades already (mappings of index to grade): leave grades= out")
        if not all(isinstance(items, Mapping) for items in relevant):
            raise DataError("relevant= has mappings of index to grade for some queries and lists for others; give one")
        pairs = as_pairs([list(items) for items in relevant], n_queries)
        return pairs, _as_grades([grade for items in relevant for grade in items.values()])
    if not isinstance(relevant, Tensor | np.ndarray):
        raise ConfigError("grades= goes with relevant= as rows (query index, gallery index); else give mappings")
    assert grades is not None
    return as_pairs(relevant, n_queries), _as_grades(grades)


def has_mappings(relevant: Relevant) -> bool:
    """Whether relevance comes as mappings of gallery index to grade."""
    return not isinstance(relevant, Tensor | np.ndarray) and any(isinstance(items, Mapping) for items in relevant)


def _as_grades(grades: Grades) -> Tensor:
    try:
        return torch.as_tensor(np.asarray(grades, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise DataError(f"grades must be numbers: {error}") from error


def _checked_grades(grades: Tensor, n_pairs: int) -> Tensor:
    if grades.shape != (n_pairs,):
        raise DataError(f"grades must have shape ({n_pairs},), one a pair, got {tuple(grades.shape)}")
    grades = grades.double()
    wrong = (~grades.isfinite()).nonzero()
    if len(wrong):
        raise DataError(f"row {int(wrong[0])} of the grades holds NaN or infinity; a grade is a finite number")
    return grades
