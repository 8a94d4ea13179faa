from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simtrain.errors import ConfigError, DataError
from simtrain.metrics import retrieval_report, retrieval_scores, similarities

CUTS = (1, 3, 10)


def grid(seed: int, n: int, dim: int, span: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-span, span + 1, (n, dim), generator=generator).float()


def assert_scores(scores, expected) -> None:
    assert scores["query"].tolist() == sorted(expected)
    for name in scores.keys() - {"query"}:
        wanted = torch.tensor([expected[query][name] for query in sorted(expected)], dtype=torch.float64)
        torch.testing.assert_close(scores[name], wanted, rtol=1e-12, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_queries=st.integers(1, 70),
    n_gallery=st.integers(1, 130),
    classes=st.sampled_from([1, 3, 50]),
    span=st.integers(0, 3),
    budget=st.sampled_from([1, 60_000, 10**8]),
    mask_share=st.sampled_from([0.0, 0.3, 0.95]),
)
def test_query_and_gallery_equal_brute_force(
    brute_force, seed, n_queries, n_gallery, classes, span, budget, mask_share
):
    queries, gallery = grid(seed, n_queries, 3, span), grid(seed + 1, n_gallery, 3, span)
    rng = np.random.default_rng(seed)
    labels, others = rng.integers(classes, size=n_queries), rng.integers(classes, size=n_gallery)
    mask = rng.random((n_queries, n_gallery)) < mask_share
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(similarities.TILES, "cpu", (48, 48))
        scores = retrieval_scores(queries, labels, gallery, others, CUTS, mask, distance="dot", memory_budget=budget)
    expected = brute_force(
        (queries @ gallery.T).tolist(), lambda q, g: labels[q] == others[g], lambda q, g: mask[q, g], CUTS
    )
    assert_scores(scores, expected)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 110),
    classes=st.sampled_from([1, 4, 60]),
    span=st.integers(0, 3),
    budget=st.sampled_from([1, 10**8]),
    masked=st.booleans(),
)
def test_leave_one_out_equals_brute_force(brute_force, seed, n, classes, span, budget, masked):
    points = grid(seed, n, 3, span)
    rng = np.random.default_rng(seed)
    labels, mask = rng.integers(classes, size=n), rng.random((n, n)) < 0.3 * masked
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(similarities.TILES, "cpu", (48, 48))
        scores = retrieval_scores(
            points, labels, k=CUTS, exclude=mask if masked else None, distance="dot", memory_budget=budget
        )
    expected = brute_force(
        (points @ points.T).tolist(), lambda q, g: labels[q] == labels[g], lambda q, g: q == g or mask[q, g], CUTS
    )
    assert_scores(scores, expected)
    report = retrieval_report(points, labels, k=CUTS, exclude=mask if masked else None, distance="dot")
    assert report["n_queries"] == n
    assert report["n_queries_without_match"] == n - len(expected)
    assert all(0.0 <= value <= 1.0 + 1e-12 for name, value in report.items() if not name.startswith("n_queries"))


@settings(max_examples=20, deadline=None)
@given(data=st.data(), seed=st.integers(0, 10**6), n_queries=st.integers(1, 30), n_gallery=st.integers(1, 40))
def test_explicit_relevance_equals_brute_force(brute_force, data, seed, n_queries, n_gallery):
    queries, gallery = grid(seed, n_queries, 2, 2), grid(seed + 1, n_gallery, 2, 2)
    one = st.lists(st.integers(0, n_gallery - 1), max_size=8)
    lists = data.draw(st.lists(one, min_size=n_queries, max_size=n_queries))
    pairs = torch.tensor([(q, g) for q, items in enumerate(lists) for g in items]).reshape(-1, 2).long()
    expected = brute_force((queries @ gallery.T).tolist(), lambda q, g: g in lists[q], lambda q, g: False, CUTS)
    for relevant in (lists, [torch.tensor(items, dtype=torch.int64) for items in lists], pairs, pairs.numpy()):
        scores = retrieval_scores(queries, gallery_embeddings=gallery, k=CUTS, relevant=relevant, distance="dot")
        assert_scores(scores, expected)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_cosine_and_euclidean_equal_brute_force_in_float64(brute_force, distance):
    torch.manual_seed(0)
    points, labels = torch.randn(300, 8).double(), torch.randint(12, (300,))
    unit = torch.nn.functional.normalize(points)
    reference = unit @ unit.T if distance == "cosine" else -(points[:, None] - points).square().sum(-1)
    expected = brute_force(reference.tolist(), lambda q, g: bool(labels[q] == labels[g]), lambda q, g: q == g, CUTS)
    assert_scores(retrieval_scores(points, labels, k=CUTS, distance=distance), expected)


def test_report_is_the_mean_of_the_scores_and_blocks_do_not_show():
    torch.manual_seed(1)
    gallery, others = torch.randn(3300, 12), torch.randint(80, (3300,))
    points, labels = torch.randn(210, 12), torch.randint(80, (210,))
    scores = retrieval_scores(points, labels, gallery, others)
    small = retrieval_scores(points, labels, gallery, others, memory_budget=1)
    assert all(torch.equal(scores[name], small[name]) for name in scores)
    report = retrieval_report(points, labels, gallery, others)
    names = {f"{name}@{k}" for name in ("precision", "recall", "hit_rate", "map", "ndcg") for k in (1, 5, 10)}
    assert set(report) == names | {"mrr", "r_precision", "map@r", "n_queries", "n_queries_without_match"}
    assert all(report[name] == float(scores[name].mean()) for name in scores.keys() - {"query"})
    assert all(type(value) is float for value in report.values())


def test_equals_torchmetrics_on_shifted_scores():
    from torchmetrics.functional import retrieval as tm

    torch.manual_seed(2)
    points, labels = torch.randn(50, 5).double(), torch.randint(6, (50,))
    scores = retrieval_scores(points, labels, k=CUTS, distance="cosine")
    unit = torch.nn.functional.normalize(points)
    # torchmetrics ignores hits scored <= 0: shift cosines above.
    shifted = unit @ unit.T + 2.0
    others = ~torch.eye(50, dtype=torch.bool)
    for place, query in enumerate(scores["query"].tolist()):
        row, target = shifted[query][others[query]], (labels == labels[query])[others[query]]
        assert scores["mrr"][place] == pytest.approx(float(tm.retrieval_reciprocal_rank(row, target)))
        assert scores["r_precision"][place] == pytest.approx(float(tm.retrieval_r_precision(row, target)))
        for k in CUTS:
            assert scores[f"precision@{k}"][place] == pytest.approx(float(tm.retrieval_precision(row, target, k)))
            assert scores[f"recall@{k}"][place] == pytest.approx(float(tm.retrieval_recall(row, target, k)))
            assert scores[f"hit_rate@{k}"][place] == pytest.approx(float(tm.retrieval_hit_rate(row, target, k)))
            assert scores[f"ndcg@{k}"][place] == pytest.approx(float(tm.retrieval_normalized_dcg(row, target, k)))


def test_equals_sklearn_ndcg():
    from sklearn.metrics import ndcg_score

    torch.manual_seed(3)
    queries, gallery = torch.randn(30, 4).double(), torch.randn(90, 4).double()
    labels, others = torch.randint(5, (30,)), torch.randint(5, (90,))
    scores = retrieval_scores(queries, labels, gallery, others, k=(1, 7, 90), distance="dot")
    for k in (1, 7, 90):
        expected = ndcg_score((labels[:, None] == others).numpy(), (queries @ gallery.T).numpy(), k=k)
        assert float(scores[f"ndcg@{k}"].mean()) == pytest.approx(expected)


def test_equals_pml_where_definitions_agree():
    torch.manual_seed(4)
    points, labels = torch.randn(200, 6), torch.randint(20, (200,))
    report = retrieval_report(points, labels)
    knn = pml_knn()
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r", "mean_reciprocal_rank")
    calculator = AccuracyCalculator(include=names, k=None, knn_func=knn)
    expected = calculator.get_accuracy(points, labels)
    for ours, theirs in zip(("precision@1", "r_precision", "map@r", "mrr"), names, strict=True):
        assert report[ours] == pytest.approx(expected[theirs], abs=1e-6)


def pml_knn():
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.inference import CustomKNN

    return CustomKNN(CosineSimilarity())


def test_shifting_all_scores_changes_nothing():
    torch.manual_seed(5)
    points, labels = torch.randn(80, 5).double(), torch.randint(7, (80,))
    # One more coordinate, equal for all, shifts every dot product by the same.
    lifted = torch.cat([points, torch.full((80, 1), 64.0).double()], dim=1)
    far = torch.cat([points, torch.full((80, 1), 64.0).double()], dim=1)
    far[:, -1] *= -1
    plain = retrieval_scores(points, labels, distance="dot")
    up = retrieval_scores(lifted, labels, distance="dot")
    down = retrieval_scores(far, labels, lifted, labels, distance="dot", exclude=torch.eye(80, dtype=torch.bool))
    for name in plain:
        assert torch.equal(plain[name], up[name])
        assert torch.equal(plain[name], down[name])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_permuting_the_gallery_changes_nothing_without_ties(seed):
    generator = torch.Generator().manual_seed(seed)
    queries, gallery = torch.randn(20, 6, generator=generator), torch.randn(150, 6, generator=generator)
    labels, others = torch.arange(20) % 5, torch.arange(150) % 6
    order = torch.randperm(150, generator=generator)
    first = retrieval_scores(queries.double(), labels, gallery.double(), others)
    second = retrieval_scores(queries.double(), labels, gallery.double()[order], others[order])
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_collapsed_embeddings_rank_by_index():
    labels = torch.tensor([0, 1, 0, 1])
    scores = retrieval_scores(torch.ones(4, 3), labels, k=1)
    assert scores["mrr"].tolist() == [1 / 2, 1 / 3, 1.0, 1 / 2]


def test_defect_12_r_precision_is_the_mean_over_queries():
    perfect = torch.eye(100).repeat_interleave(2, dim=0)
    report = retrieval_report(perfect, torch.arange(100).repeat_interleave(2))
    assert report["r_precision"] == report["map@r"] == report["mrr"] == report["precision@1"] == 1.0
    # Two queries with 1 and 3 relevant items count the same: (1 + 1/3) / 2, not (1 + 1) / 4.
    gallery = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [-1, -0.1], [1, 0.1], [1, 0.2]])
    uneven = retrieval_report(torch.tensor([[1.0, 0], [0, 1]]), gallery_embeddings=gallery, relevant=[[0], [1, 2, 3]])
    assert uneven["r_precision"] == pytest.approx((1 + 1 / 3) / 2)


def test_defect_13_mrr_is_over_queries_and_keeps_late_hits():
    gallery = torch.tensor([[3.0], [2.0], [1.0], [0.0]])
    report = retrieval_report(
        torch.ones(3, 1), gallery_embeddings=gallery, relevant=[[0, 1], [3], []], k=1, distance="dot"
    )
    assert report["mrr"] == (1 + 1 / 4) / 2
    assert report["n_queries_without_match"] == 1


@pytest.mark.parametrize("kind", [torch.tensor, np.array, list])
def test_defect_23_labels_stay_apart_beyond_float32(kind):
    labels = kind([16_777_216, 16_777_217, 16_777_216, 16_777_217])
    points = torch.tensor([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1]])
    assert retrieval_report(points, labels, k=1)["precision@1"] == 0.0
    beyond = kind([2**62, 2**62 + 1, 2**62, 2**62 + 1])
    assert retrieval_report(points, beyond, k=1)["precision@1"] == 0.0


def test_defect_25_map_at_r_divides_by_r():
    gallery = torch.tensor([[5.0], [4.0], [3.0], [2.0], [1.0]])
    report = retrieval_report(torch.ones(1, 1), gallery_embeddings=gallery, relevant=[[0, 3, 4]], k=1, distance="dot")
    # One of R = 3 in the first three, at rank 1: 1/3. Divided by the hits found it would be 1.
    assert report["map@r"] == pytest.approx(1 / 3)


MEMORY = """
import resource, sys, torch
from simtrain.metrics import retrieval_report
torch.set_num_threads(1)
torch.manual_seed(0)
n, classes = {n}, {classes}
labels = torch.randint(classes, (n,))
points = torch.randn(n, 16)
retrieval_report(points[:500], labels[:500])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
retrieval_report(points, labels)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="resource is a Unix module")
@pytest.mark.parametrize(("n", "classes"), [(9_000, 3_000)])
def test_defects_24_and_26_memory_stays_near_the_budget(n, classes):
    script = MEMORY.format(n=n, classes=classes)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    # All scores would be 324 MB, a classes x items table 108 MB; the budget is 160 MB, of which it needs a part.
    assert float(result.stdout) < 130


def test_importing_the_room_is_light():
    script = "import sys, simtrain.metrics as m; m.top_k; print(*sorted(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in result.stdout.split()}
    assert "torch" in loaded
    assert not loaded & {"torchmetrics", "lightning", "pytorch_metric_learning", "sklearn", "matplotlib"}


def test_no_query_with_a_match_gives_zeros_not_nan():
    report = retrieval_report(torch.randn(3, 2), ["a", "b", "c"])
    assert report.pop("n_queries") == report.pop("n_queries_without_match") == 3
    assert set(report.values()) == {0.0}
    scores = retrieval_scores(torch.randn(3, 2), ["a", "b", "c"])
    assert all(len(values) == 0 for values in scores.values())
    assert retrieval_report(torch.empty(0, 2), [])["n_queries"] == 0


def test_hashable_labels_and_mixed_kinds():
    points = torch.eye(4)[[0, 0, 1, 1]]
    names = [("x", 1), ("x", 1), "y", "y"]
    assert retrieval_report(points, names, k=1)["precision@1"] == 1.0
    numbers = retrieval_report(points, torch.tensor([1, 1, 2, 2]), points, ["1", 1, 2, np.int64(2)], k=1)
    assert numbers["n_queries_without_match"] == 0
    assert numbers["recall@1"] == 0.25 * (0 + 0 + 0.5 + 0.5)
    listed = [torch.tensor(1), torch.tensor(1), torch.tensor(2), torch.tensor(2)]
    assert retrieval_report(points, listed, k=1)["precision@1"] == 1.0


POINTS = torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({}, ConfigError, "relevance is not known"),
        ({"query_labels": [1, 2, 3], "gallery_embeddings": POINTS}, ConfigError, "relevance is not known"),
        ({"query_labels": [1, 2, 3], "relevant": [[], [], []]}, ConfigError, "labels or relevant=, not both"),
        ({"query_labels": [1, 2]}, DataError, "got 2 labels for 3 queries"),
        (
            {"query_labels": [1, 2, 3], "gallery_embeddings": POINTS, "gallery_labels": [1]},
            DataError,
            "got 1 labels for 3 gallery items",
        ),
        ({"query_labels": torch.zeros(3)}, DataError, "hashables, got torch.float32; use int64"),
        ({"query_labels": np.zeros(3)}, DataError, "hashables, got float64"),
        ({"query_labels": [0.0, 1.0, 2.0]}, DataError, "got the float 0.0"),
        ({"query_labels": ["a", None, None]}, DataError, "the label of query 1 is None"),
        ({"query_labels": [[1], [2], [3]]}, DataError, "hashables: unhashable type"),
        ({"query_labels": torch.zeros(3, 2).long()}, DataError, r"got shape \(3, 2\); give several labels"),
        ({"query_labels": [1, 2, 3], "k": []}, ConfigError, r"k is a positive integer .* got \[\]"),
        ({"query_labels": [1, 2, 3], "k": (1, 0)}, ConfigError, r"got \(1, 0\)"),
        ({"query_labels": [1, 2, 3], "gallery_labels": [4, 5, 6]}, ConfigError, "belong to gallery_embeddings="),
        ({"relevant": torch.eye(3).bool()}, DataError, r"got booleans; give relevant.nonzero\(\)"),
        ({"relevant": torch.ones(3, 2).bool()}, DataError, r"got booleans; give relevant.nonzero\(\)"),
        ({"relevant": [{0: 1}, [1], []]}, DataError, "mappings of index to grade for some queries and lists for"),
        ({"query_labels": [1, 2, 3], "exclude": torch.arange(3)}, ConfigError, "own item is left out already"),
        ({"relevant": [[0]]}, DataError, "1 entries for 3 queries"),
        ({"relevant": [[0], [3], []]}, DataError, "names gallery index 3, accepted are 0 to 2"),
        ({"relevant": [[0], [0.5], []]}, DataError, r"gallery indices \(integers\), got 0.5"),
        ({"relevant": torch.tensor([[3, 0]])}, DataError, "names query index 3"),
        ({"relevant": torch.tensor([3, 0])}, DataError, r"shape \(pairs, 2\), got torch.int64 of shape \(2,\)"),
    ],
)
def test_messages(words, error, message):
    with pytest.raises(error, match=message):
        retrieval_report(POINTS, **words)


@pytest.mark.parametrize("k", [5.0, None])
def test_a_depth_that_is_no_integer_is_refused(without_type_checks, k):
    with pytest.raises(ConfigError, match=f"k is a positive integer or a sequence of them, got {k}"):
        retrieval_report(POINTS, [0, 0, 1], k=k)


def test_depths_of_numpy_are_integers_too(without_type_checks):
    points, labels = torch.randn(9, 3), [0, 1, 2] * 3
    plain = retrieval_report(points, labels, k=(1, 4))
    assert retrieval_report(points, labels, k=np.array([4, 1])) == plain
    assert retrieval_report(points, labels, k=np.int64(4))["map@4"] == plain["map@4"]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 40),
    n_distractors=st.integers(1, 200),
    budget=st.sampled_from([1, 10**8]),
)
def test_distractors_are_searched_and_are_nobodys_match(brute_force, seed, n, n_distractors, budget):
    points, more = grid(seed, n, 3, 2), grid(seed + 1, n_distractors, 3, 2)
    labels = torch.arange(n) % 4
    gallery, others = torch.cat([more, points]), torch.cat([torch.arange(n_distractors) + 100, labels])
    own = torch.arange(n) + n_distractors
    scores = retrieval_scores(points, labels, gallery, others, CUTS, exclude=own, distance="dot", memory_budget=budget)
    expected = brute_force(
        (points @ gallery.T).tolist(), lambda q, g: labels[q] == others[g], lambda q, g: g == own[q], CUTS
    )
    assert_scores(scores, expected)
    alone = retrieval_scores(points, labels, k=CUTS, distance="dot")
    assert torch.equal(scores["query"], alone["query"])
    for name in scores.keys() - {"query"}:
        assert (scores[name] <= alone[name] + 1e-12).all(), name


def test_a_match_of_the_same_camera_does_not_count_but_other_items_of_it_do(brute_force):
    points, labels = grid(3, 60, 3, 2), torch.arange(60) % 5
    cameras = torch.arange(60) % 3

    def same_photo_session(queries, items):
        same = labels[queries][:, None] == labels[items]
        return same & (cameras[queries][:, None] == cameras[items])

    scores = retrieval_scores(points, labels, points, labels, CUTS, exclude=same_photo_session, distance="dot")
    expected = brute_force(
        (points @ points.T).tolist(),
        lambda q, g: labels[q] == labels[g],
        lambda q, g: labels[q] == labels[g] and cameras[q] == cameras[g],
        CUTS,
    )
    assert_scores(scores, expected)


def test_a_long_report_tells_how_far_it_is(capsys):
    points, labels = torch.randn(700, 4), torch.arange(700) % 7
    shown = retrieval_report(points, labels, memory_budget=1, show_progress=True)
    told = capsys.readouterr().err
    assert "ranking: 192 of 700" in told
    quiet = retrieval_report(points, labels, memory_budget=1, show_progress=False)
    assert capsys.readouterr().err == ""
    assert shown == quiet
