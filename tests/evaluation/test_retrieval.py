import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simtrain import CacheConfig, CacheType, SimilarityModel, evaluate
from simtrain.cache import CachedModel
from simtrain.data import SimilarityGroupSample, SimilarityPairDataset, SimilarityPairSample, SimilarityTripletSample
from simtrain.encoders import PrecomputedEncoder
from simtrain.errors import DataError
from simtrain.evaluation import RetrievalResult, retrieval_task
from simtrain.evaluation.table import comparison_table, result_table
from simtrain.heads import EmptyHead

MODEL = SimilarityModel(PrecomputedEncoder(2), EmptyHead(2))


def at(degrees: float) -> tuple[float, float]:
    return (math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))


def test_known_ranks_give_known_figures():
    # Documents at 0, 10, 20 degrees. The first query finds its own first, the second at rank 3.
    pairs = [
        SimilarityPairSample(at(-1), at(0)),
        SimilarityPairSample(at(1), at(20)),
        SimilarityPairSample(at(10), at(10)),
    ]
    metrics = evaluate(MODEL, pairs, k=(1, 3)).metrics
    assert metrics["hit_rate@1"] == pytest.approx(2 / 3)
    assert metrics["hit_rate@3"] == 1
    assert metrics["mrr"] == pytest.approx((1 + 1 / 3 + 1) / 3)


def test_equal_queries_and_documents_count_once_and_all_their_matches_are_relevant():
    pairs = [
        SimilarityPairSample(at(0), at(1)),
        SimilarityPairSample(at(0), at(2)),
        SimilarityPairSample(at(0), at(1)),
        SimilarityPairSample(at(50), at(2)),
        SimilarityPairSample(at(90), at(91), score=0.0),
    ]
    task = retrieval_task(pairs)
    assert len(task.queries) == 3
    assert len(task.gallery) == 3
    assert task.relevant.tolist() == [[0, 0], [0, 1], [1, 1]]
    result = evaluate(MODEL, pairs, k=(2,))
    assert result.n_queries == 2, "a query whose only pair is a mismatch has nothing to find"
    assert result.metrics["recall@2"] == pytest.approx((1 + 1) / 2)


def test_groups_search_each_other_without_themselves():
    samples = [SimilarityGroupSample(at(angle), group) for angle, group in ((0, 1), (2, 1), (90, 2), (93, 2), (180, 3))]
    result = evaluate(MODEL, samples, k=(1,))
    assert result.n_queries == 4
    assert result.n_gallery == 4
    assert result.metrics["precision@1"] == 1.0


@given(st.integers(0, 1000))
def test_cached_evaluation_equals_uncached(seed):
    vectors = torch.randn(12, 2, 2, generator=torch.Generator().manual_seed(seed)).tolist()
    pairs = [SimilarityPairSample(tuple(query), tuple(document)) for query, document in vectors]
    cached = CachedModel(MODEL, CacheConfig(CacheType.CPU))
    assert evaluate(cached, pairs).metrics == evaluate(MODEL, SimilarityPairDataset(pairs)).metrics


def results(worse: float = 0.0) -> tuple[RetrievalResult, RetrievalResult]:
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(200, generator=generator) * 0.5
    return RetrievalResult({"mrr": first}, 10), RetrievalResult({"mrr": first + 0.1 - worse}, 10)


def test_a_better_other_gives_a_positive_difference():
    before, after = results()
    test = before.compare(after, "mrr")
    assert test.difference == pytest.approx(0.1)
    assert test.low == pytest.approx(0.1)
    assert test.p_value < 0.001
    assert after.compare(before, "mrr").difference == pytest.approx(-0.1)


def test_the_interval_holds_the_mean():
    before, _ = results()
    low, high = before.interval("mrr")
    assert low < before.metrics["mrr"] < high


def test_results_over_other_queries_are_not_compared():
    before, _ = results()
    with pytest.raises(DataError, match="the same queries on both sides, got 200 and 3"):
        before.compare(RetrievalResult({"mrr": torch.ones(3)}, 10), "mrr")


def test_tables_show_values_intervals_and_the_signed_difference():
    before, after = results()
    table = comparison_table(before, after, ["mrr"])
    assert table.splitlines()[0].startswith("| metric | before")
    assert "+0.100 [+0.100, +0.100]" in table
    assert len({len(line) for line in table.splitlines()}) == 1
    assert f"{before.metrics['mrr']:.3f}" in result_table(before, ["mrr"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "evaluation takes samples of one kind, pairs, triplets or groups; got no sample"),
        (
            [SimilarityTripletSample("a", "b", ["c"]), SimilarityPairSample("a", "b")],
            "got SimilarityPairSample, SimilarityTripletSample",
        ),
        (
            [SimilarityPairSample("a", "b"), SimilarityGroupSample("a", 1)],
            "SimilarityGroupSample, SimilarityPairSample",
        ),
        ([SimilarityPairSample([1.0], "b")], "pair 0: its items should be hashable"),
    ],
)
def test_data_that_is_no_test_set_is_refused(data, message):
    with pytest.raises(DataError, match=message):
        evaluate(MODEL, data)


def test_triplets_search_positives_and_negatives():
    samples = [SimilarityTripletSample("q1", "d1", ["d2", "d3"]), SimilarityTripletSample("q2", "d3", ["d1"])]
    task = retrieval_task(samples)
    assert (task.queries, task.gallery) == (["q1", "q2"], ["d1", "d3", "d2"])
    assert task.relevant.tolist() == [[0, 0], [1, 1]]
