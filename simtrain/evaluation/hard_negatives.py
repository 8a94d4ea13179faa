"""Hard negatives for training, mined from a corpus: items that a model finds near a query and that do not match it."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from simtrain.cache import CachedModel
from simtrain.errors import DataError
from simtrain.evaluation.mined_negatives import MinedNegatives
from simtrain.evaluation.negative_choice import NegativeRules, choose
from simtrain.metrics.neighbors import top_k
from simtrain.models import SimilarityModel
from simtrain.models.progress import track

_logger = logging.getLogger(__name__)
_BLOCK = 2048


def mine_hard_negatives(
    model: SimilarityModel | CachedModel,
    queries: Sequence[Any],
    corpus: Sequence[Any],
    positives: Sequence[Any],
    k: int = 5,
    *,
    margin: float | int | None = None,
    relative_margin: float | int | None = None,
    max_score: float | int | None = None,
    min_score: float | int | None = None,
    range_min: int = 0,
    range_max: int = 100,
    sampling: str = "top",
    seed: int = 0,
    batch_size: int = 32,
    show_progress: bool | None = None,
) -> MinedNegatives:
    """Find, for each query, items of a corpus that are near it and do not match it.

    The search is exact, by cosine, over the distinct items of the corpus. Never taken as a negative: any positive of an
    equal query, whatever its row, and an item equal to the query itself. The nearest items of a large corpus are often
    matches that nobody has labelled; ``relative_margin=0.05`` (or another of the rules) leaves those out that score as
    high as the positive.

    Args:
        model: Encodes queries as queries and the corpus as documents.
        queries: Raw items to search with, hashable (texts, tuples, paths).
        corpus: Raw items to search in, hashable.
        positives: What matches each query: an item, or a list or set of items; they need not be in the corpus.
        k: Negatives for each query and positive.
        margin: Leave out what scores above the positive's score minus this.
        relative_margin: Leave out what scores above this share below the positive's score (0.05: above 95 % of it).
        max_score: Leave out what scores above this.
        min_score: Leave out what scores below this.
        range_min: Pass over so many of the nearest items that do not match.
        range_max: Look only so deep among the items that do not match; at most ``range_max - range_min`` candidates.
        sampling: ``"top"`` takes the nearest that are left, ``"random"`` any of them.
        seed: Seed of the random choice.
        batch_size: Items a batch while encoding.
        show_progress: Show progress bars; None shows one on a terminal for work of over a second.

    Returns:
        The negatives, as samples and as a file; how many queries are left without any is in it and in the log.

    Raises:
        ConfigError: A rule is out of range.
        DataError: There are no queries or no corpus, the numbers of queries and positives differ, a query has no
            positive, or an item is not hashable.

    Reference:
        Moreira et al., "NV-Retriever: Improving text embedding models with effective hard-negative mining", 2024,
        https://arxiv.org/abs/2407.15831 (margins to the positive's score).

    Example:
        >>> from simtrain.encoders import PrecomputedEncoder
        >>> from simtrain.heads import EmptyHead
        >>> model = SimilarityModel(PrecomputedEncoder(2), EmptyHead(2))
        >>> corpus = [(1.0, 0.1), (1.0, 0.3), (0.0, 1.0)]
        >>> mined = mine_hard_negatives(model, [(1.0, 0.0)], corpus, positives=[[(1.0, 0.1)]], k=1)
        >>> mined.triplets()[0].negatives
        [(1.0, 0.3)]
    """
    rules = NegativeRules(k, margin, relative_margin, max_score, min_score, range_min, range_max, sampling, seed)
    pairs = _pairs(queries, positives)
    query_rows, item_rows = _numbered(queries, "query"), _numbered(corpus, "item of the corpus")
    if not item_rows:
        raise DataError("mine_hard_negatives needs a corpus to search in, got no item")
    n_corpus = len(item_rows)
    for _, positive in pairs:  # beyond the corpus: encoded, but not searched
        item_rows.setdefault(positive, len(item_rows))
    options: dict[str, Any] = {"batch_size": batch_size, "to_numpy": False, "show_progress": show_progress}
    query_vectors = model.encode_query(list(query_rows), **options)
    item_vectors = model.encode_document(list(item_rows), **options)
    of_query = torch.tensor([query_rows[query] for query, _ in pairs])
    of_positive = torch.tensor([item_rows[positive] for _, positive in pairs])
    matches = _Matches(query_rows, item_rows, of_query, of_positive)
    positive_scores = _row_cosines(query_vectors, item_vectors, of_query, of_positive)

    random = np.random.default_rng(seed) if sampling == "random" else None
    depth = min(n_corpus, rules.range_max + matches.most)
    columns: list[Tensor] = []
    scores: list[Tensor] = []
    blocks = range(0, len(pairs), _BLOCK)
    for start in track(blocks, len(blocks), "Mining", show_progress):
        rows = slice(start, start + _BLOCK)
        # Pairs of one query stand beside each other: it is searched once a block.
        searched, back = torch.unique(of_query[rows], return_inverse=True)
        found_scores, found = top_k(query_vectors[searched], item_vectors[:n_corpus], depth)
        found_scores, found = found_scores.cpu()[back], found.cpu()[back]
        allowed = rules.allowed(found_scores, matches.of(of_query[rows], found), positive_scores[rows])
        chosen, is_there = choose(allowed, k, random)
        columns.append(found.gather(1, chosen).masked_fill(~is_there, -1))
        scores.append(found_scores.gather(1, chosen).masked_fill(~is_there, torch.nan))
    mined = MinedNegatives(pairs, list(item_rows)[:n_corpus], torch.cat(columns), torch.cat(scores), positive_scores)
    _report(mined, k)
    return mined


class _Matches:
    """Which items are known to match a query, by their rows."""

    def __init__(
        self,
        query_rows: dict[Hashable, int],
        item_rows: dict[Hashable, int],
        of_query: Int64[Tensor, " pairs"],
        of_positive: Int64[Tensor, " pairs"],
    ) -> None:
        self.n_items = len(item_rows)
        same = [(row, item_rows[query]) for query, row in query_rows.items() if query in item_rows]
        own = torch.tensor(same, dtype=torch.long).reshape(-1, 2)
        keys = torch.cat([of_query * self.n_items + of_positive, own[:, 0] * self.n_items + own[:, 1]])
        self.keys: Tensor = torch.unique(keys)
        #: Matches of the query that has most.
        self.most = int((self.keys // self.n_items).bincount().max())

    def of(self, queries: Int64[Tensor, " rows"], items: Int64[Tensor, "rows depth"]) -> Bool[Tensor, "rows depth"]:
        """Where an item is a known match of the row's query."""
        keys = queries.unsqueeze(1) * self.n_items + items
        place = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
        return self.keys[place] == keys


def _row_cosines(queries: Tensor, items: Tensor, of_query: Tensor, of_positive: Tensor) -> Float[Tensor, " pairs"]:
    scores = []
    for rows, others in zip(torch.split(of_query, _BLOCK), torch.split(of_positive, _BLOCK), strict=True):
        wide = torch.promote_types(queries.dtype, torch.float32)
        scores.append(torch.cosine_similarity(queries[rows].to(wide), items[others].to(wide)).cpu())
    return torch.cat(scores)


def _pairs(queries: Sequence[Any], positives: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Distinct pairs of query and positive, those of equal queries beside each other."""
    if len(queries) != len(positives) or not len(queries):
        raise DataError(
            f"mine_hard_negatives needs queries and what matches each of them, got {len(queries)} queries and "
            f"{len(positives)} positives"
        )
    known: dict[Hashable, dict[Hashable, None]] = {}
    for row, (query, given) in enumerate(zip(queries, positives, strict=True)):
        items = list(_listed(given))
        if not items:
            raise DataError(f"query {row} has no positive; leave it out")
        for item in items:
            _check_hashable(item, f"a positive of query {row}")
        _check_hashable(query, f"query {row}")
        known.setdefault(query, {}).update(dict.fromkeys(items))
    return [(query, item) for query, items in known.items() for item in items]


def _listed(given: Any) -> Iterable[Any]:
    # A tuple is an item: a vector, or a record.
    return given if isinstance(given, (list, set, frozenset)) else [given]


def _numbered(items: Sequence[Any], what: str) -> dict[Hashable, int]:
    rows: dict[Hashable, int] = {}
    for row, item in enumerate(items):
        _check_hashable(item, f"{what} {row}")
        rows.setdefault(item, len(rows))
    return rows


def _check_hashable(item: Any, name: str) -> None:
    try:
        hash(item)
    except TypeError:
        raise DataError(
            f"{name} should be hashable (a text, a tuple, a path), so that equal ones can be told, "
            f"got a {type(item).__name__}"
        ) from None


def _report(mined: MinedNegatives, k: int) -> None:
    if mined.n_without or mined.n_short:
        _logger.warning(
            "hard negatives: of %d pairs of query and positive, %d have no negative left and %d fewer than %d; "
            "relax the rules or raise range_max",
            len(mined.pairs),
            mined.n_without,
            mined.n_short,
            k,
        )
