"""Retrieval within one training batch: the batch's targets as relevance and exclusion."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from simtrain.errors import ConfigError, DataError
from simtrain.metrics.exclusion import Exclusion
from simtrain.metrics.graded import GradedRelevance
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
    graded: bool = False,
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
        graded: Take the labels of pairs as grades; of items in one subgroup the lower label of their pairs.

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
    vectors = as_vectors(embeddings, "embeddings")
    similarities = Similarities(vectors, vectors, distance)
    n_rows, device = len(vectors), similarities.device
    relevance = batch_relevance(n_rows, groups, pairs, labels, subgroups, device=device, graded=graded)
    exclusion = Exclusion(torch.arange(n_rows), None, n_queries=n_rows, n_gallery=n_rows, device=device)
    return list(rank(similarities, relevance, exclusion, depth=depth, to_r=to_r, first=first))


def batch_relevance(
    n_rows: int,
    groups: Tensor | None = None,
    pairs: Tensor | None = None,
    labels: Tensor | None = None,
    subgroups: Tensor | None = None,
    *,
    device: torch.device | str = "cpu",
    graded: bool = False,
) -> Relevance:
    """Which items of a batch are relevant to which; arguments as :func:`rank_batch`.

    Raises:
        ConfigError: Not exactly one of ``groups`` and ``pairs`` is given.
        DataError: Targets do not fit so many rows.

    Example:
        >>> batch_relevance(3, groups=torch.tensor([5, 6, 5])).counts().tolist()
        [2, 1, 2]
    """
    if (groups is None) == (pairs is None):
        raise ConfigError("give groups of a group batch or pairs of a pair batch: exactly one of them")
    if pairs is None:
        return _group_relevance(groups, n_rows, torch.device(device))
    return _pair_relevance(pairs, labels, subgroups, n_rows, torch.device(device), graded)


def _group_relevance(groups: Tensor | None, n_rows: int, device: torch.device) -> Relevance:
    if groups is None or groups.shape != (n_rows,) or groups.is_floating_point():
        kind = None if groups is None else f"{groups.dtype} of shape {tuple(groups.shape)}"
        raise DataError(f"groups must be integers of shape ({n_rows},), one an embedding, got {kind}")
    groups = groups.to(device, torch.int64)
    return LabelRelevance(groups, groups)


def _pair_relevance(
    pairs: Tensor, labels: Tensor | None, subgroups: Tensor | None, n_rows: int, device: torch.device, graded: bool
) -> Relevance:
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.is_floating_point():
        raise DataError(
            f"pairs must be integer rows (query, document) of shape (pairs, 2), got {pairs.dtype} of shape "
            f"{tuple(pairs.shape)}"
        )
    pairs = pairs.to(device, torch.int64)
    if labels is not None and labels.shape != (len(pairs),):
        raise DataError(f"labels must have shape ({len(pairs)},), one a pair, got {tuple(labels.shape)}")
    grades = torch.ones(len(pairs), device=device) if labels is None else labels.to(device)
    matching = grades > 0
    links, gains = [pairs[matching], pairs[matching].flip(1)], [grades[matching], grades[matching]]
    if subgroups is not None:
        more, of_more = _subgroup_links(pairs, matching, subgroups.to(device), grades)
        links.append(more)
        gains.append(of_more)
    linked, gain = torch.cat(links), torch.cat(gains)
    different = linked[:, 0] != linked[:, 1]
    if not graded:
        return PairRelevance(linked[different], n_rows, n_rows)
    # Items that are linked twice, in two pairs, count as the higher label says.
    keys, place = torch.unique(linked[different] @ linked.new_tensor([n_rows, 1]), return_inverse=True)
    highest = torch.zeros(len(keys), dtype=torch.float64, device=device)
    highest.scatter_reduce_(0, place, gain[different].double(), "amax")
    distinct = torch.stack([keys.div(max(n_rows, 1), rounding_mode="floor"), keys % max(n_rows, 1)], dim=1)
    return GradedRelevance(distinct, highest, n_rows, n_rows)


def _subgroup_links(
    pairs: Int64[Tensor, "pairs 2"], matching: Tensor, subgroups: Tensor, grades: Tensor
) -> tuple[Int64[Tensor, "links 2"], Tensor]:
    """Rows that share a subgroup, and the lower grade of their two pairs."""
    n_pairs = len(pairs)
    if subgroups.shape not in ((n_pairs,), (2 * n_pairs,)) or subgroups.is_floating_point():
        raise DataError(
            f"subgroups must be integers of shape ({n_pairs},) or ({2 * n_pairs},), got {subgroups.dtype} of shape "
            f"{tuple(subgroups.shape)}"
        )
    both = subgroups.repeat(2) if len(subgroups) == n_pairs else subgroups
    used = matching.repeat(2) & (both != 0)
    places = _all_links(both[used])
    rows, gains = pairs.T.reshape(-1)[used], grades.repeat(2)[used]
    return rows[places], gains[places].amin(dim=1)


def _all_links(groups: Int64[Tensor, " rows"]) -> Int64[Tensor, "links 2"]:
    """Every place with every place of its group, joined by sorting: as many links as there are, not rows x rows."""
    groups, rows = groups.sort(stable=True)
    start = torch.searchsorted(groups, groups)
    count = torch.searchsorted(groups, groups, right=True) - start
    left = rows.repeat_interleave(count)
    offset = torch.arange(len(left), device=rows.device) - (count.cumsum(0) - count).repeat_interleave(count)
    return torch.stack([left, rows[start.repeat_interleave(count) + offset]], dim=1)
