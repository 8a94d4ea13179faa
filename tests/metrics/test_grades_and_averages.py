"""Graded relevance, the divisors of MAP@k, queries without a match, and means over more than queries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simtrain.errors import ConfigError, DataError
from simtrain.evaluation.matrix_scores import matrix_scores
from simtrain.metrics import grouped_report, retrieval_report, retrieval_scores
from simtrain.metrics import report as report_room
from simtrain.metrics.comparison import count_above, count_equal, reaching
from simtrain.metrics.formulas import average_precision

CUTS = (1, 3, 10)


def grid(seed: int, n: int) -> torch.Tensor:
    return torch.randint(-2, 3, (n, 3), generator=torch.Generator().manual_seed(seed)).double()


def ndcg_by_hand(scores, grades: dict[int, float], excluded: set[int], k: int) -> float:
    allowed = [item for item in range(len(scores)) if item not in excluded]
    order = sorted(allowed, key=lambda item: (-scores[item], item))[:k]
    gains = [max(grades.get(item, 0.0), 0.0) for item in order]
    ideal = sorted((max(grades.get(item, 0.0), 0.0) for item in allowed), reverse=True)[:k]
    discounts = 1 / np.log2(np.arange(2, 2 + max(len(gains), len(ideal))))
    return float((gains * discounts[: len(gains)]).sum() / (ideal * discounts[: len(ideal)]).sum())


@settings(max_examples=40, deadline=None)
@given(
    data=st.data(),
    seed=st.integers(0, 10**6),
    n_queries=st.integers(1, 12),
    n_gallery=st.integers(1, 60),
    share=st.sampled_from([0.0, 0.4]),
    budget=st.sampled_from([1, 10**8]),
)
def test_graded_ndcg_equals_its_formula(data, seed, n_queries, n_gallery, share, budget):
    queries, gallery = grid(seed, n_queries), grid(seed + 1, n_gallery)
    mask = np.random.default_rng(seed).random((n_queries, n_gallery)) < share
    one = st.dictionaries(st.integers(0, n_gallery - 1), st.sampled_from([-1, 0, 0.5, 1, 2, 7]), max_size=9)
    lists = data.draw(st.lists(one, min_size=n_queries, max_size=n_queries))
    wanted = {
        query: {k: ndcg_by_hand(row, lists[query], set(np.flatnonzero(mask[query])), k) for k in CUTS}
        for query, row in enumerate((queries @ gallery.T).tolist())
        if any(grade > 0 and not mask[query, item] for item, grade in lists[query].items())
    }
    pairs = torch.tensor([(q, item) for q, row in enumerate(lists) for item in row]).reshape(-1, 2).long()
    grades = [grade for row in lists for grade in row.values()]
    options = {"gallery_embeddings": gallery, "k": CUTS, "exclude": mask, "distance": "dot", "memory_budget": budget}
    given_ways = [{"relevant": pairs, "grades": grades}]
    if any(lists):
        given_ways.append({"relevant": lists})
    for given_way in given_ways:
        scores = retrieval_scores(queries, **given_way, **options)
        assert scores["query"].tolist() == sorted(wanted)
        for k in CUTS:
            assert scores[f"ndcg@{k}"].tolist() == pytest.approx([wanted[q][k] for q in sorted(wanted)], abs=1e-12)
        blocks = [(torch.arange(n_queries), queries @ gallery.T)]
        given_scores = matrix_scores(
            blocks, n_queries, n_gallery, CUTS, exclude=lambda q, g: torch.from_numpy(mask)[q][:, g], **given_way
        )
        for name in scores:
            torch.testing.assert_close(given_scores[name], scores[name], rtol=0, atol=1e-12)


def test_graded_ndcg_equals_sklearn():
    from sklearn.metrics import ndcg_score

    torch.manual_seed(0)
    queries, gallery = torch.randn(20, 4).double(), torch.randn(70, 4).double()
    grades = torch.randint(0, 4, (20, 70)).double()
    scores = retrieval_scores(
        queries,
        gallery_embeddings=gallery,
        relevant=torch.ones(20, 70).nonzero(),
        grades=grades.view(-1),
        distance="dot",
    )
    for k in (1, 5, 10):
        expected = ndcg_score(grades.numpy(), (queries @ gallery.T).numpy(), k=k)
        assert float(scores[f"ndcg@{k}"].mean()) == pytest.approx(expected, abs=1e-12)


def test_grades_that_are_all_one_change_nothing():
    torch.manual_seed(1)
    queries, gallery, pairs = torch.randn(9, 4), torch.randn(40, 4), torch.randint(9, (30, 2))
    plain = retrieval_scores(queries, gallery_embeddings=gallery, relevant=pairs)
    graded = retrieval_scores(queries, gallery_embeddings=gallery, relevant=pairs, grades=np.ones(30, np.int8))
    for name, values in plain.items():
        torch.testing.assert_close(graded[name], values, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"relevant": [[0, 1], [0, 1]], "grades": [1, 2]}, ConfigError, "goes with relevant= as rows"),
        ({"relevant": [{0: 1}, {}], "grades": [1]}, ConfigError, "holds grades already"),
        ({"grades": [1], "query_labels": [0, 1], "gallery_labels": [0, 1, 1]}, ConfigError, "give both"),
        ({"relevant": torch.tensor([[0, 1], [1, 1]]), "grades": [1]}, DataError, r"shape \(2,\), one a pair"),
        ({"relevant": torch.tensor([[0, 1]]), "grades": [float("nan")]}, DataError, "row 0 of the grades"),
        ({"relevant": torch.tensor([[0, 1]]), "grades": ["good"]}, DataError, "grades must be numbers"),
        ({"relevant": torch.tensor([[0, 3]]), "grades": [0]}, DataError, "gallery index 3, accepted are 0 to 2"),
        ({"relevant": torch.tensor([[0, 1], [0, 1]]), "grades": [1, 2]}, DataError, "query 0 and gallery item 1 two"),
    ],
)
def test_wrong_grades_are_refused(words, error, message):
    with pytest.raises(error, match=message):
        retrieval_report(torch.randn(2, 3), gallery_embeddings=torch.randn(3, 3), **words)


def test_defect_25_each_denominator_of_map_is_its_peers():
    """What torchmetrics, sentence-transformers and trec_eval call MAP at k, query by query."""
    from torchmetrics.functional.retrieval import retrieval_average_precision

    torch.manual_seed(2)
    hits, n_relevant, k = torch.rand(200, 12) < 0.3, torch.randint(1, 30, (200,)), 7
    n_relevant = torch.maximum(n_relevant, hits.sum(dim=1))
    falling = torch.arange(12, 0, -1).double()
    found = average_precision(hits, n_relevant, k, "hits")
    for row in range(200):
        assert float(found[row]) == pytest.approx(float(retrieval_average_precision(falling, hits[row], top_k=k)))
    # sentence-transformers' InformationRetrievalEvaluator: the sum of precisions by min(k, R).
    sums = [sum((row[: rank + 1].sum().item() / (rank + 1)) for rank in range(k) if row[rank]) for row in hits]
    by_min = average_precision(hits, n_relevant, k, "min_k_relevant")
    assert by_min.tolist() == pytest.approx([total / min(k, int(r)) for total, r in zip(sums, n_relevant, strict=True)])
    by_all = average_precision(hits, n_relevant, k, "relevant")
    assert by_all.tolist() == pytest.approx([total / int(r) for total, r in zip(sums, n_relevant, strict=True)])


def test_unknown_options_are_refused():
    points = torch.randn(4, 2)
    for words, message in (
        ({"denominator": "relevan"}, "unknown denominator 'relevan'; did you mean 'relevant'"),
        ({"empty": "skp"}, "unknown value of empty, 'skp'; did you mean 'skip'"),
        ({"average": "macr"}, "unknown average 'macr'; did you mean 'macro'"),
    ):
        with pytest.raises(ConfigError, match=message):
            retrieval_report(points, [0, 0, 1, 1], **words)


def test_queries_without_a_match_are_skipped_zero_or_an_error():
    points = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    labels = ["cat", "cat", "dog", "fox"]
    skipped = retrieval_report(points, labels, k=1)
    zeros = retrieval_report(points, labels, k=1, empty="zero")
    assert (skipped["mrr"], zeros["mrr"]) == (1.0, 0.5)
    assert skipped["n_queries_without_match"] == zeros["n_queries_without_match"] == 2.0
    scores = retrieval_scores(points, labels, k=1, empty="zero")
    assert scores["query"].tolist() == [0, 1, 2, 3]
    assert scores["map@1"].tolist() == [1.0, 1.0, 0.0, 0.0]
    with pytest.raises(DataError, match="2 queries have no relevant item in the gallery, such as query 2"):
        retrieval_report(points, labels, k=1, empty="error")
    assert retrieval_report(points, ["a", "b", "c", "d"], k=1)["mrr"] == 0.0
    assert retrieval_report(points, ["a", "b", "c", "d"], k=1, average="micro", empty="zero")["mrr"] == 0.0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 60), classes=st.sampled_from([1, 4, 20]))
def test_micro_counts_every_relevant_item_alike(seed, n, classes):
    points, labels = grid(seed, n), torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))
    scores = retrieval_scores(points, labels, k=3)
    relevant = (labels[:, None] == labels).sum(dim=1)[scores["query"]] - 1
    report = retrieval_report(points, labels, k=3, average="micro")
    if len(relevant):
        # Found by the relevant items of all queries together.
        found = (scores["recall@3"] * relevant).round().sum()
        assert report["recall@3"] == pytest.approx(float(found / relevant.sum()))
        assert report["mrr"] == pytest.approx(float((scores["mrr"] * relevant).sum() / relevant.sum()))
    zeros = retrieval_report(points, labels, k=3, average="micro", empty="zero")
    assert zeros == pytest.approx(report)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 60), classes=st.sampled_from([1, 4, 20]))
def test_means_by_class_and_by_subgroup(seed, n, classes):
    points, labels = grid(seed, n), np.random.default_rng(seed).integers(classes, size=n)
    cameras = [f"camera {seed % 3 + number % 2}" for number in range(n)]
    scores = retrieval_scores(points, labels, k=3)
    for groups in (labels, torch.from_numpy(labels), cameras):
        report = grouped_report(scores, groups)
        of_query = [groups[query] if isinstance(groups, list) else int(groups[query]) for query in scores["query"]]
        assert list(report) == list(dict.fromkeys(of_query))
        for name, means in report.items():
            rows = [row for row, group in enumerate(of_query) if group == name]
            assert means["n_queries"] == len(rows)
            assert set(means) == scores.keys() - {"query"} | {"n_queries"}
            assert means["map@r"] == pytest.approx(float(scores["map@r"][rows].mean()))
    if len(scores["query"]):
        with pytest.raises(DataError, match="give one a query"):
            grouped_report(scores, labels[: int(scores["query"].max())])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 5),
    columns=st.sampled_from([0, 1, 7, 8, 48, 8 * 254, 8 * 255, 8 * 257, 8 * 510]),
)
def test_counts_of_a_row_are_exact_at_every_width(seed, rows, columns):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 3, (rows, columns), generator=generator).float()
    bound = torch.randint(-1, 4, (rows, 1), generator=generator).float()
    assert torch.equal(count_above(scores, bound), (scores > bound).sum(dim=1))
    assert torch.equal(count_equal(scores, bound), (scores == bound).sum(dim=1))
    assert torch.equal(reaching(scores, bound), (scores >= bound).view(-1).nonzero()[:, 0])
    assert count_above(torch.ones(rows, columns), torch.zeros(rows, 1)).tolist() == [columns] * rows


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 20), alone=st.booleans(), kind=st.sampled_from("nmf"))
def test_an_error_about_queries_without_a_match_comes_before_the_search_for_the_same_queries(seed, n, alone, kind):
    generator = torch.Generator().manual_seed(seed)
    points, labels = grid(seed, n), torch.randint(4, (n,), generator=generator)
    other = torch.randint(4, (n + 2,), generator=generator)
    mask = torch.rand(n, n if alone else n + 2, generator=generator) < 0.4
    exclude = {"n": None, "m": mask, "f": lambda rows, columns: mask[rows][:, columns]}[kind]
    words = {"k": 1, "exclude": exclude, "show_progress": False}
    words |= {} if alone else {"gallery_embeddings": grid(seed + 1, n + 2), "gallery_labels": other}
    missing = sorted(set(range(n)) - set(retrieval_scores(points, labels, **words)["query"].tolist()))
    with pytest.MonkeyPatch.context() as patch:
        if not missing:
            retrieval_scores(points, labels, empty="error", **words)
            return
        patch.setattr(report_room, "rank", None)
        patch.setattr(report_room, "rank_mutually", None)
        with pytest.raises(DataError, match=f"{len(missing)} queries have no .* such as query {missing[0]};"):
            retrieval_scores(points, labels, empty="error", **words)


def test_arrays_of_another_byte_order_are_measured_too():
    points, labels = grid(0, 20).numpy(), np.arange(20) % 4
    expected = retrieval_report(points, labels, k=3)
    assert retrieval_report(points.astype(">f8"), labels.astype(">i8"), k=3) == expected
