from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from simtrain.metrics import mutual_ranking, retrieval_report, running_ranks
from simtrain.metrics.class_tiles import class_tiles
from simtrain.metrics.exclusion import Exclusion
from simtrain.metrics.mutual_ranking import rank_mutually, ranks_mutually
from simtrain.metrics.ranking import Ranked, rank
from simtrain.metrics.relevance import LabelRelevance
from simtrain.metrics.similarities import Similarities

SIDE = 48


@pytest.fixture
def small_squares(monkeypatch):
    monkeypatch.setattr(mutual_ranking, "SIDE", SIDE)
    monkeypatch.setattr(mutual_ranking, "LEAST_ITEMS", 2)


def search(points: torch.Tensor, labels: torch.Tensor, distance: str = "cosine"):
    similarities = Similarities(points, points, distance)
    own = Exclusion(torch.arange(len(points)), None, n_queries=len(points), n_gallery=len(points))
    return similarities, LabelRelevance(labels, labels), own


def by_query(blocks: list[Ranked], depth: int) -> dict[int, tuple[list[int], int, int]]:
    """Ranks of relevant items up to the depth or R, number of relevant items, first rank."""
    found = {}
    for block in blocks:
        for row, query in enumerate(block.queries.tolist()):
            deepest = max(depth, int(block.n_relevant[row]))
            ranks = block.hits[row, :deepest].nonzero()[:, 0].tolist()
            found[query] = (ranks, int(block.n_relevant[row]), int(block.first_rank[row]))
    return found


def classes(seed: int, n: int, most: int) -> torch.Tensor:
    """Labels with classes of 1 to ``most`` items, in random order."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, most + 1, (n,), generator=generator)
    return torch.arange(n).repeat_interleave(sizes)[:n][torch.randperm(n, generator=generator)]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(49, 400),
    dim=st.integers(1, 6),
    span=st.integers(0, 4),
    most=st.integers(1, 12),
    depth=st.integers(1, 12),
    budget=st.sampled_from([1, 40_000, 10**8]),
    slack=st.sampled_from([-3.0, 0.0, 3.0]),
)
def test_equals_the_search_query_by_query_with_ties_wrong_guesses_and_groups(
    seed, n, dim, span, most, depth, budget, slack
):
    points = torch.randint(-span, span + 1, (n, dim), generator=torch.Generator().manual_seed(seed)).float()
    arguments = search(points, classes(seed, n, most), "dot")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mutual_ranking, "SIDE", SIDE)
        patch.setattr(mutual_ranking, "LEAST_ITEMS", 2)
        patch.setattr(running_ranks, "SLACK", slack)
        assert ranks_mutually(*arguments, depth)
        mutual = by_query(list(rank_mutually(*arguments, depth=depth, memory_budget=budget)), depth)
    assert mutual == by_query(list(rank(*arguments, depth=depth)), depth)


@pytest.mark.usefixtures("small_squares")
@pytest.mark.parametrize("distance", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("noise", [0.3, 1.0, 5.0])
def test_equals_brute_force_in_float64(distance, dtype, noise, brute_force):
    torch.manual_seed(0)
    labels = classes(1, 300, 12)
    points = (torch.randn(301, 8)[labels] + noise * torch.randn(300, 8)).to(dtype)
    exact = points.double()
    scores = {
        "cosine": lambda: normalize(exact) @ normalize(exact).T,
        "dot": lambda: exact @ exact.T,
        "euclidean": lambda: -(exact[:, None] - exact).square().sum(-1).sqrt(),
    }[distance]()
    expected = brute_force(
        scores.tolist(), lambda q, g: bool(labels[q] == labels[g]) and q != g, lambda q, g: q == g, (1, 5, 10)
    )
    report = retrieval_report(points, labels, distance=distance)
    for name in next(iter(expected.values())):
        mean = sum(metrics[name] for metrics in expected.values()) / len(expected)
        assert report[name] == pytest.approx(mean, abs=1e-12), name
    assert report["n_queries_without_match"] == 300 - len(expected)


@pytest.mark.usefixtures("small_squares")
def test_only_tied_queries_are_searched_again(monkeypatch):
    points, labels = torch.randn(200, 8, generator=torch.Generator().manual_seed(0)), torch.arange(200) // 4
    points[100] = points[1]  # of another class: a tie for the others of item 1's class, and of item 100's
    again = []

    def counted(*arguments, queries, **words):
        again.extend(queries.tolist())
        return rank(*arguments, queries=queries, **words)

    monkeypatch.setattr(mutual_ranking, "rank", counted)
    arguments = search(points, labels)
    found = by_query(list(rank_mutually(*arguments, depth=5)), 5)
    assert found == by_query(list(rank(*arguments, depth=5)), 5)
    assert set(again) <= {0, 1, 2, 3, 100, 101, 102, 103}
    assert again


@pytest.mark.usefixtures("small_squares")
def test_collapsed_embeddings_are_ranked_by_index():
    labels = classes(3, 150, 6)
    arguments = search(torch.ones(150, 4), labels)
    assert by_query(list(rank_mutually(*arguments, depth=3)), 3) == by_query(list(rank(*arguments, depth=3)), 3)


def test_is_left_alone_where_it_cannot_serve(monkeypatch):
    monkeypatch.setattr(mutual_ranking, "LEAST_ITEMS", 100)
    points, labels = torch.randn(200, 4), torch.arange(200) // 4
    similarities, relevance, own = search(points, labels)
    most = mutual_ranking.SIDE // mutual_ranking.LARGEST_SHARE
    assert ranks_mutually(similarities, relevance, own, most)
    assert not ranks_mutually(similarities, relevance, own, most + 1)
    assert not ranks_mutually(Similarities(points, points.clone()), relevance, own, 1)
    assert not ranks_mutually(similarities, LabelRelevance(labels, labels + 1), own, 1)
    nothing = Exclusion(None, None, n_queries=200, n_gallery=200)
    assert not ranks_mutually(similarities, relevance, nothing, 1)
    masked = Exclusion(torch.arange(200), torch.zeros(200, 200).bool(), n_queries=200, n_gallery=200)
    assert not ranks_mutually(similarities, relevance, masked, 1)
    one_class = torch.zeros(most + 2, dtype=torch.int64)
    assert not ranks_mutually(*search(torch.randn(most + 2, 4), one_class), 1)


def test_a_report_of_many_items_takes_it_and_equals_the_search_query_by_query(monkeypatch):
    torch.manual_seed(0)
    labels = torch.randint(600, (7000,))
    points = torch.randn(600, 16)[labels] + 1.5 * torch.randn(7000, 16)
    report = retrieval_report(points, labels)
    monkeypatch.setattr(mutual_ranking, "LEAST_ITEMS", 10**9)
    assert report == pytest.approx(retrieval_report(points, labels), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), most=st.integers(1, 6), deeper=st.integers(0, 6), n_others=st.integers(0, 12))
def test_the_bound_is_the_score_that_depth_items_reach(seed, most, deeper, n_others):
    generator = torch.Generator().manual_seed(seed)
    relevant = torch.randint(-9, 9, (5, most), generator=generator).float().sort(dim=1, descending=True).values
    n_relevant = torch.randint(0, most + 1, (5,), generator=generator)
    relevant[torch.arange(most) >= n_relevant[:, None]] = -torch.inf
    others = torch.randint(-9, 9, (5, n_others), generator=generator).float().sort(dim=1).values
    ranks = running_ranks.RunningRanks(relevant, n_relevant, most + deeper, n_squares=3, side=SIDE)
    both = torch.cat([relevant, others, torch.full((5, most + deeper), -torch.inf)], dim=1)
    expected = both.sort(dim=1, descending=True).values[:, most + deeper - 1]
    assert ranks._reached(others.numpy()).tolist() == expected.tolist()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(0, 200), most=st.integers(1, 12))
def test_tiles_hold_whole_classes_and_every_item_once(seed, n, most):
    labels = classes(seed, n, most) * 10**12
    side, tiles = class_tiles(labels, 12)
    assert side == max((len(tile.items) for tile in tiles), default=1) <= 12
    assert sorted(item for tile in tiles for item in tile.items.tolist()) == list(range(n))
    for tile in tiles:
        assert len(tile.items) > 0
        for place, item in enumerate(tile.items):
            own = tile.items[tile.first[place] : tile.first[place] + tile.size[place]]
            assert sorted(own.tolist()) == (labels == labels[item]).nonzero()[:, 0].tolist()
