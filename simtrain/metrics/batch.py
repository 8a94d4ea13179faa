"""Retrieval within one training batch: the batch's targets as relevance and exclusion."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from simtrain.errors import ConfigError, DataError
from simtrain.metrics.exclusion import Exclusion
from simtrain.metrics.ranking import Ranked, rank
from simtrain.metrics.relevance import LabelRelevance, PairRelevance, Relevance
from simtrain.metrics.similarities import Distance, Similarities
from simtrain.metrics.vectors import as_vectors


def rank_batch(
    embeddings: Tensor,
    groups: Tensor | None = None,
    pairs: Tensor | None = None,
    labels: Tensor | None = None,
    subgroups: Tensor | None = None,
    *,
    distance: Distance = "cosine",
    depth: int = 1,
    to_r: bool = True,
    first: bool = True,
) -> list[Ranked]:
    """Search each item of a batch among the batch's other items.

    Args:
        embeddings: Shape ``(rows, dim)``.
        groups: Of group batches: integers of shape ``(rows,)``; items of one group are relevant to each other.
        pairs: Of pair batches: rows ``(query, document)`` of ``embeddings``, shape ``(pairs, 2)``. All rows are
            searched among, those of a matching pair search.
        labels: Of pair batches: shape ``(pairs,)``; a pair matches where its label is above 0. Default: all match.
        subgroups: Of pair batches: integers of shape ``(pairs,)``, or ``(2 * pairs,)`` with the queries' first and
            then the documents'. All items of matching pairs with the same non-zero subgroup are relevant to each
            other. Default: none.
        distance: ``"cosine"``, ``"dot"`` or ``"euclidean"``.
        depth: How many ranks to look at.
        to_r: Look at least at as many ranks as an item has relevant ones.
        first: Find the rank of the first relevant item.

    Returns:
        The rankings of all items that have a relevant one.

    Raises:
        ConfigError: Not exactly one of ``groups`` and ``pairs`` is given.
        DataError: Targets do not fit the embeddings.

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [0.1, 0.9]])
        >>> [ranked] = rank_batch(points, pairs=torch.tensor([[0, 2], [1, 3]]))
        >>> ranked.hits[:, 0].tolist()
        [True, True, True, True]
    """
    if (groups is None) == (pairs is None):
        raise ConfigError("give groups of a group batch or pairs of a pair batch: exactly one of them")
    vectors = as_vectors(embeddings, "embeddings")
    similarities = Similarities(vectors, vectors, distance)
    if pairs is None:
        relevance = _group_relevance(groups, len(vectors), similarities.device)
    else:
        relevance = _pair_relevance(pairs, labels, subgroups, len(vectors), similarities.device)
    n_rows = len(vectors)
    own = torch.arange(n_rows)
    exclusion = Exclusion(own, None, n_queries=n_rows, n_gallery=n_rows, device=similarities.device)
    return list(rank(similarities, relevance, exclusion, depth=depth, to_r=to_r, first=first))


def _group_relevance(groups: Tensor | None, n_rows: int, device: torch.device) -> Relevance:
    if groups is None or groups.shape != (n_rows,) or groups.is_floating_point():
        kind = None if groups is None else f"{groups.dtype} of shape {tuple(groups.shape)}"
        raise DataError(f"groups must be integers of shape ({n_rows},), one an embedding, got {kind}")
    groups = groups.to(device, torch.int64)
    return LabelRelevance(groups, groups)


def _pair_relevance(
    pairs: Tensor, labels: Tensor | None, subgroups: Tensor | None, n_rows: int, device: torch.device
) -> Relevance:
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.is_floating_point():
        raise DataError(
            f"pairs must be integer rows (query, document) of shape (pairs, 2), got {pairs.dtype} of shape "
            f"{tuple(pairs.shape)}"
        )
    pairs = pairs.to(device, torch.int64)
    if labels is not None and labels.shape != (len(pairs),):
        raise DataError(f"labels must have shape ({len(pairs)},), one a pair, got {tuple(labels.shape)}")
    matching = torch.ones(len(pairs), dtype=torch.bool, device=device) if labels is None else labels.to(device) > 0
    matched = pairs[matching]
    links = [matched, matched.flip(1)]
    if subgroups is not None:
        links.append(_subgroup_links(pairs, matching, subgroups.to(device)))
    linked = torch.cat(links)
    return PairRelevance(linked[linked[:, 0] != linked[:, 1]], n_rows, n_rows)


def _subgroup_links(pairs: Int64[Tensor, "pairs 2"], matching: Tensor, subgroups: Tensor) -> Int64[Tensor, "links 2"]:
    n_pairs = len(pairs)
    if subgroups.shape not in ((n_pairs,), (2 * n_pairs,)) or subgroups.is_floating_point():
        raise DataError(
            f"subgroups must be integers of shape ({n_pairs},) or ({2 * n_pairs},), got {subgroups.dtype} of shape "
            f"{tuple(subgroups.shape)}"
        )
    both = subgroups.repeat(2) if len(subgroups) == n_pairs else subgroups
    used = matching.repeat(2) & (both != 0)
    return _all_links(pairs.T.reshape(-1)[used], both[used])


def _all_links(rows: Int64[Tensor, " rows"], groups: Tensor) -> Int64[Tensor, "links 2"]:
    """Every row with every row of its group, joined by sorting: as many links as there are, not rows x rows."""
    groups, order = groups.sort(stable=True)
    rows = rows[order]
    start = torch.searchsorted(groups, groups)
    count = torch.searchsorted(groups, groups, right=True) - start
    left = rows.repeat_interleave(count)
    offset = torch.arange(len(left), device=rows.device) - (count.cumsum(0) - count).repeat_interleave(count)
    return torch.stack([left, rows[start.repeat_interleave(count) + offset]], dim=1)
