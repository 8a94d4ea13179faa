import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simtrain import CacheConfig, CacheType, SimilarityModel, evaluate
from simtrain.cache import CachedModel
from simtrain.data import (
    QueryGallery,
    SimilarityGroupSample,
    SimilarityPairDataset,
    SimilarityPairSample,
    SimilarityTripletSample,
)
from simtrain.encoders import PrecomputedEncoder
from simtrain.errors import ConfigError, DataError
from simtrain.evaluation import (
    HeldOutRetrieval,
    PostProcessing,
    RetrievalResult,
    comparison_table,
    evaluate_subsets,
    result_table,
    results_table,
    retrieval_task,
)
from simtrain.heads import EmptyHead
from simtrain.metrics import retrieval_report

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


def test_results_of_other_queries_are_not_compared_either():
    first = RetrievalResult({"mrr": torch.ones(2)}, 9, query_rows=torch.tensor([0, 3]))
    second = RetrievalResult({"mrr": torch.ones(2)}, 9, query_rows=torch.tensor([0, 4]))
    with pytest.raises(DataError, match="the same queries on both sides: their numbers differ, first 3 and 4"):
        first.compare(second, "mrr")
    assert first.compare(first, "mrr").difference == 0


def lonely_pairs():
    """The second of three queries has nothing to find."""
    return [
        SimilarityPairSample(at(0), at(1)),
        SimilarityPairSample(at(50), at(2), score=0.0),
        SimilarityPairSample(at(90), at(91)),
    ]


def test_queries_without_a_match_are_counted_and_treated_as_told():
    skipped, zeros = (evaluate(MODEL, lonely_pairs(), k=1, empty=empty) for empty in ("skip", "zero"))
    assert (skipped.n_queries, skipped.n_without_match, skipped.metrics["mrr"]) == (2, 1, 1.0)
    assert (zeros.n_queries, zeros.n_without_match) == (3, 1)
    assert zeros.metrics["mrr"] == pytest.approx(2 / 3)
    assert zeros.scores["mrr"].tolist() == [1.0, 0.0, 1.0]
    assert skipped.as_dict()["n_queries_without_match"] == 1
    with pytest.raises(DataError, match="1 queries have no relevant item in the gallery, such as query 1"):
        evaluate(MODEL, lonely_pairs(), empty="error")
    for empty in ("skip", "zero"):
        reranked = evaluate(MODEL, lonely_pairs(), k=1, empty=empty, post=PostProcessing(reranking=True))
        assert reranked.n_without_match == 1
        assert reranked.n_queries == (2 if empty == "skip" else 3)
    with pytest.raises(DataError, match="such as query 1"):
        evaluate(MODEL, lonely_pairs(), empty="error", post=PostProcessing(reranking=True))


@pytest.mark.parametrize("post", [None, PostProcessing(reranking=True, lambda_value=1.0)])
def test_the_divisor_of_map_is_an_option(post):
    points = torch.randn(30, 2).tolist()
    samples = [SimilarityGroupSample(tuple(point), number % 3) for number, point in enumerate(points)]
    found = {
        name: evaluate(MODEL, samples, k=3, denominator=name, post=post).metrics["map@3"]
        for name in ("relevant", "min_k_relevant", "hits")
    }
    rows, labels = torch.tensor(points), torch.arange(30) % 3
    for name, value in found.items():
        assert value == pytest.approx(retrieval_report(rows, labels, k=3, denominator=name)["map@3"])
    assert found["relevant"] < found["min_k_relevant"] < found["hits"]


@pytest.mark.parametrize("words", [{"k": 0}, {"denominator": "r"}, {"empty": "drop"}])
def test_wrong_options_are_told_before_anything_is_encoded(words):
    with pytest.raises(ConfigError):
        evaluate(MODEL, lonely_pairs(), **words)


def test_means_by_class_of_a_result():
    samples = [SimilarityGroupSample(at(angle), group) for angle, group in ((0, 1), (9, 2), (2, 1), (90, 2), (180, 3))]
    result = evaluate(MODEL, samples, k=1)
    report = result.by_group(["left", "right", "left", "right", "alone"])
    assert {name: (means["precision@1"], means["n_queries"]) for name, means in report.items()} == {
        "left": (1.0, 2.0),
        "right": (0.5, 2.0),
    }


def test_one_table_of_several_results():
    before, after = results()
    table = results_table({"frozen": before, "trained": after}, ["mrr"], first="model").splitlines()
    assert [cell.strip() for cell in table[0].split("|")[1:-1]] == ["model", "queries", "mrr"]
    assert [cell.strip() for cell in table[3].split("|")[1:-1]][:2] == ["trained", "200"]
    assert f"{after.metrics['mrr']:.3f} [" in table[3]
    with pytest.raises(ConfigError, match="frozen has no metric 'mr'; did you mean 'mrr'"):
        results_table({"frozen": before}, ["mr"])


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


class Refusing(PrecomputedEncoder):
    """An encoder that must not be asked."""

    def forward(self, batch):
        raise AssertionError("encoded before the data were checked")


@pytest.mark.parametrize("kind", ["pairs", "groups", "query_gallery", "several"])
def test_queries_without_a_match_are_an_error_before_anything_is_encoded(kind):
    groups = [SimilarityGroupSample(at(number), number // 2) for number in range(5)]
    # The last query's only match is in its own sequence.
    own = {"query_sequences": [-1, -1, 3], "gallery_sequences": [-1, -1, 3]}
    tests = {
        "pairs": (lonely_pairs(), 1),
        "groups": (groups, 4),
        "query_gallery": (QueryGallery([at(0), at(1), at(2)], [at(3), at(4), at(5)], [0, 0, 1], [0, 0, 1], **own), 2),
    }
    tests["several"] = ({"first": tests["groups"][0]}, 4)
    data, query = tests[kind]
    model = SimilarityModel(Refusing(2), EmptyHead(2))
    message = f"1 queries have no relevant item in the gallery, such as query {query}"
    with pytest.raises(DataError, match=message):
        evaluate(model, data, empty="error")
    if kind != "several":
        with pytest.raises(DataError, match=message):
            HeldOutRetrieval(data, empty="error")
        if kind != "groups":  # whose subsets are of whole groups
            with pytest.raises(DataError, match=message):
                evaluate_subsets(model, data, n_queries=3, repeats=1, empty="error")
