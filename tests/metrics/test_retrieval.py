from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simtrain import metrics as room
from simtrain import registry
from simtrain.errors import ConfigError, DataError
from simtrain.metrics import (
    RetrievalHitRate,
    RetrievalMAP,
    RetrievalMetric,
    RetrievalNDCG,
    RetrievalPrecision,
    RetrievalRecall,
    RetrievalReciprocalRank,
    RetrievalRPrecision,
)

BUILD = {
    "precision@3": lambda: RetrievalPrecision(3, distance="dot"),
    "recall@3": lambda: RetrievalRecall(3, distance="dot"),
    "hit_rate@3": lambda: RetrievalHitRate(k=3, distance="dot"),
    "ndcg@3": lambda: RetrievalNDCG(3, distance="dot"),
    "map@3": lambda: RetrievalMAP(3, distance="dot"),
    "map@r": lambda: RetrievalMAP("r", distance="dot"),
    "mrr": lambda: RetrievalReciprocalRank(distance="dot"),
    "r_precision": lambda: RetrievalRPrecision(distance="dot"),
}


def grid(seed: int, n: int, dim: int) -> torch.Tensor:
    return torch.randint(-2, 3, (n, dim), generator=torch.Generator().manual_seed(seed)).float()


def never(query: int, item: int) -> bool:
    return query == item


def mean(results: list[dict[int, dict[str, float]]], name: str) -> float:
    values = [metrics[name] for result in results for metrics in result.values()]
    return sum(values) / len(values) if values else 0.0


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=3), classes=st.integers(1, 9)
)
def test_group_batches_equal_brute_force(brute_force, seed, sizes, classes):
    built = {name: build() for name, build in BUILD.items()}
    results = []
    for step, size in enumerate(sizes):
        points = grid(seed + step, size, 3)
        groups = torch.randint(classes, (size,), generator=torch.Generator().manual_seed(seed))
        for metric in built.values():
            metric.update(points, groups)
        same = (groups[:, None] == groups).tolist()
        results.append(brute_force((points @ points.T).tolist(), lambda q, g, same=same: same[q][g], never, (3,)))
    for name, metric in built.items():
        assert float(metric.compute()) == pytest.approx(mean(results, name), abs=1e-6), name


@settings(max_examples=15, deadline=None)
@given(data=st.data(), seed=st.integers(0, 10**6), n=st.integers(1, 15), both=st.booleans(), shuffled=st.booleans())
def test_pair_batches_equal_brute_force(brute_force, data, seed, n, both, shuffled):
    points = grid(seed, 2 * n, 3)
    rows = torch.randperm(2 * n, generator=torch.Generator().manual_seed(seed)) if shuffled else torch.arange(2 * n)
    pairs = rows.reshape(2, n).T
    labels = torch.tensor(data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=n, max_size=n)))
    subgroups = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    owner = {row: pair for pair, two in enumerate(pairs.tolist()) for row in two}
    score, subgroup = labels.tolist(), subgroups.tolist()

    def is_relevant(query: int, item: int) -> bool:
        a, b = owner[query], owner[item]
        matching = score[a] > 0 and score[b] > 0
        return matching and (a == b or (subgroup[a] == subgroup[b] and subgroup[a] != 0))

    result = brute_force((points @ points.T).tolist(), is_relevant, never, (3,))
    for name, build in BUILD.items():
        metric = build()
        metric.update(points, pairs=pairs, labels=labels, subgroups=subgroups.repeat(2) if both else subgroups)
        assert float(metric.compute()) == pytest.approx(mean([result], name), abs=1e-6), name


def test_a_row_of_two_pairs_has_two_partners():
    points = torch.tensor([[1.0, 0], [0.9, 0.2], [0.9, 0.25], [-1, 0]])
    metric = RetrievalRPrecision()
    metric.update(points, pairs=torch.tensor([[0, 1], [0, 2]]))
    # Row 0 finds both; rows 1 and 2 have row 0 only, and each other nearer. Row 3 is in no pair: no query.
    assert int(metric.n_queries) == 3
    assert float(metric.compute()) == pytest.approx(1 / 3)


def test_pairs_without_labels_all_match_and_zero_labels_leave_no_query():
    points, pairs = torch.randn(6, 4), torch.arange(6).reshape(2, 3).T
    plain, ones, zeros = (RetrievalReciprocalRank() for _ in range(3))
    plain.update(points, pairs=pairs)
    ones.update(points, pairs=pairs, labels=torch.ones(3))
    zeros.update(points, pairs=pairs, labels=torch.zeros(3))
    assert plain.compute() == ones.compute()
    assert int(zeros.n_queries) == 0
    assert float(zeros.compute()) == 0.0


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")  # torchmetrics says so itself
@pytest.mark.parametrize("name", sorted(BUILD))
def test_no_update_gives_zero(name):
    assert float(BUILD[name]().compute()) == 0.0


def test_merged_states_of_two_processes_equal_one_bit_for_bit():
    torch.manual_seed(0)
    batches = [(torch.randn(30, 5), torch.randint(5, (30,))) for _ in range(6)]
    for build in BUILD.values():
        one, parts = build(), [build(), build()]
        for step, (points, groups) in enumerate(batches):
            one.update(points, groups)
            parts[step % 2].update(points, groups)
        total = sum(part.total for part in parts)
        count = sum(part.n_queries for part in parts)
        assert torch.equal(total, one.total)
        assert torch.equal(count, one.n_queries)


def test_states_are_constant_in_size_and_travel():
    metric = RetrievalMAP(5)
    metric.persistent(True)
    for _ in range(3):
        metric.update(torch.randn(16, 4), torch.arange(16) // 4)
    assert {name: value.shape for name, value in metric.state_dict().items()} == dict.fromkeys(
        ("total", "n_queries", "n_relevant", "n_without_match"), ()
    )
    copy = pickle.loads(pickle.dumps(metric))
    assert copy.compute() == metric.compute()
    metric.reset()
    assert int(metric.n_queries) == 0


def test_forward_gives_the_batch_value_and_gradients_are_left_alone():
    metric = RetrievalPrecision(1)
    points = torch.tensor([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1]], requires_grad=True)
    assert float(metric(points, torch.tensor([0, 0, 1, 1]))) == 1.0
    assert float(metric(points, torch.tensor([0, 1, 0, 1]))) == 0.0
    assert float(metric.compute()) == 0.5
    assert points.grad is None


def test_half_precision_batches():
    metric = RetrievalRecall(2)
    metric.update(torch.randn(8, 4).to(torch.bfloat16), torch.arange(8) // 2)
    assert 0.0 <= float(metric.compute()) <= 1.0
    assert metric.compute().dtype == torch.float32


@settings(max_examples=25, deadline=None)
@given(data=st.data(), seed=st.integers(0, 10**6), n=st.integers(1, 12), with_subgroups=st.booleans())
def test_graded_ndcg_of_pair_batches(data, seed, n, with_subgroups):
    points = grid(seed, 2 * n, 3)
    pairs = torch.arange(2 * n).reshape(2, n).T
    labels = torch.tensor(data.draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=n, max_size=n)))
    subgroups = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))) * with_subgroups
    grade = labels.repeat(2)
    lower = torch.minimum(grade[:, None], grade)
    owner, both = torch.arange(n).repeat(2), subgroups.repeat(2)
    linked = (owner[:, None] == owner) | ((both[:, None] == both) & (both > 0))
    gains = (lower * linked).double().fill_diagonal_(0.0)
    rows = (gains > 0).any(dim=1).nonzero()[:, 0].tolist()
    metric = RetrievalNDCG(3, distance="dot", graded=True)
    metric.update(points, pairs=pairs, labels=labels, subgroups=subgroups)
    values = []
    for row in rows:
        order = sorted(
            (item for item in range(2 * n) if item != row), key=lambda i: (-float(points[row] @ points[i]), i)
        )
        discounts = 1 / torch.arange(2, 5).double().log2()
        found, best = gains[row][order[:3]], gains[row].sort(descending=True).values[:3]
        values.append(float(found @ discounts[: len(found)]) / float(best @ discounts[: len(best)]))
    assert int(metric.n_queries) == len(rows)
    assert float(metric.compute()) == pytest.approx(sum(values) / len(values) if values else 0.0, abs=1e-6)


def test_grades_do_not_count_in_group_batches():
    points, groups = grid(0, 20, 3), torch.arange(20) % 4
    plain, graded = RetrievalNDCG(3), RetrievalNDCG(3, graded=True)
    plain.update(points, groups)
    graded.update(points, groups)
    assert plain.compute() == graded.compute()


@pytest.mark.parametrize("name", [name for name in room.__all__ if name[0].isupper() and name != "ErrorRates"])
def test_every_metric_can_be_drawn(name):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    if name in ("BatchMetric", "RetrievalMetric"):
        return
    metric = getattr(room, name)(**({"embedding_size": 4} if name == "EffectiveRank" else {}))
    values = [metric(torch.randn(8, 4), torch.arange(8) // 2) for _ in range(3)]
    figure, _ = metric.plot(values)
    assert figure.axes[0].lines
    matplotlib.pyplot.close(figure)


def test_defect_25_the_denominator_of_a_batch_metric():
    points, groups = grid(1, 30, 3), torch.arange(30) % 3
    values = {}
    for denominator in ("relevant", "min_k_relevant", "hits"):
        metric = RetrievalMAP(4, denominator=denominator)
        metric.update(points, groups)
        values[denominator] = float(metric.compute())
    assert values["relevant"] < values["min_k_relevant"] < values["hits"]
    with pytest.raises(ConfigError, match="unknown denominator 'r'"):
        RetrievalMAP(4, denominator="r")


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=3), classes=st.integers(1, 30)
)
def test_items_without_a_match_and_micro_means_equal_brute_force(brute_force, seed, sizes, classes):
    words = {"zero": {"empty": "zero"}, "micro": {"average": "micro"}, "both": {"average": "micro", "empty": "zero"}}
    built = {name: RetrievalRecall(3, distance="dot", **options) for name, options in words.items()}
    values, weights = [], []
    for step, size in enumerate(sizes):
        points = grid(seed + step, size, 3)
        groups = torch.randint(classes, (size,), generator=torch.Generator().manual_seed(seed))
        for metric in built.values():
            metric.update(points, groups)
        same = (groups[:, None] == groups).tolist()
        found = brute_force((points @ points.T).tolist(), lambda q, g, same=same: same[q][g], never, (3,))
        values += [found[q]["recall@3"] if q in found else 0.0 for q in range(size)]
        weights += [sum(same[q]) - 1 for q in range(size)]
    assert float(built["zero"].compute()) == pytest.approx(sum(values) / len(values), abs=1e-6)
    micro = sum(v * w for v, w in zip(values, weights, strict=True)) / max(sum(weights), 1)
    for name in ("micro", "both"):
        assert float(built[name].compute()) == pytest.approx(micro, abs=2e-6)
    assert all(int(metric.n_without_match) == weights.count(0) for metric in built.values())


def test_pairs_that_do_not_match_are_queries_without_a_match():
    points, pairs, labels = torch.eye(6), torch.tensor([[0, 1], [2, 3]]), torch.tensor([1.0, 0.0])
    zeros, strict = RetrievalReciprocalRank(empty="zero"), RetrievalReciprocalRank(empty="error")
    zeros.update(points, pairs=pairs, labels=labels)
    assert (int(zeros.n_queries), int(zeros.n_without_match)) == (2, 2), "rows 4 and 5 are in no pair: no queries"
    with pytest.raises(DataError, match="2 items of a batch of 6 have no relevant one in it"):
        strict.update(points, pairs=pairs, labels=labels)
    strict.update(points, pairs=pairs)
    for options, message in (
        ({"empty": "drop"}, "unknown value of empty, 'drop'"),
        ({"average": "macr"}, "unknown average 'macr'; did you mean 'macro'"),
    ):
        with pytest.raises(ConfigError, match=message):
            RetrievalMAP(3, **options)


def test_all_classes_are_exported_and_registered():
    names = [name for name in room.__all__ if name.startswith("Retrieval") and name != "RetrievalMetric"]
    assert len(names) == 7
    for name in names:
        cls = getattr(room, name)
        assert issubclass(cls, RetrievalMetric)
        assert registry.metrics.get(name) is cls
        assert name in dir(room)
    for name in ("PairAUC", "PairFNMR", "Alignment", "Uniformity", "EffectiveRank"):
        assert registry.metrics.get(name) is getattr(room, name)
    assert registry.metrics.build({"type": "RetrievalPrecision", "k": 4}).k == 4
    with pytest.raises(AttributeError, match="has no attribute 'RetrievalF1'"):
        _ = room.RetrievalF1


POINTS = torch.zeros(4, 2)
PAIRS = torch.tensor([[0, 2], [1, 3]])


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({}, ConfigError, "exactly one of them"),
        ({"groups": torch.zeros(4).long(), "pairs": PAIRS}, ConfigError, "exactly one of them"),
        ({"groups": torch.zeros(3).long()}, DataError, r"integers of shape \(4,\), .* got torch.int64 of shape \(3,\)"),
        ({"groups": torch.zeros(4)}, DataError, "got torch.float32"),
        ({"pairs": PAIRS.flatten()}, DataError, r"of shape \(pairs, 2\), got torch.int64 of shape \(4,\)"),
        ({"pairs": PAIRS + 1}, DataError, "index 4, accepted are 0 to 3"),
        ({"pairs": PAIRS, "labels": torch.ones(3)}, DataError, r"labels must have shape \(2,\), .* got \(3,\)"),
        ({"pairs": PAIRS, "subgroups": torch.ones(3).long()}, DataError, r"shape \(2,\) or \(4,\)"),
        ({"pairs": PAIRS, "subgroups": torch.ones(2)}, DataError, "subgroups must be integers .* got torch.float32"),
    ],
)
def test_messages(words, error, message):
    with pytest.raises(error, match=message):
        RetrievalPrecision(1).update(POINTS, **words)


def test_nan_in_a_batch_is_named():
    with pytest.raises(DataError, match="row 1 of the embeddings holds NaN"):
        RetrievalPrecision(1).update(torch.tensor([[0.0], [float("nan")]]), torch.tensor([0, 0]))


@pytest.mark.parametrize("k", [0, -1, True])
def test_wrong_k(k):
    with pytest.raises(ConfigError, match=f"k is a positive integer, got {k}"):
        RetrievalPrecision(k)
    with pytest.raises(ConfigError, match="k is a positive integer, got 0"):
        RetrievalMAP(0)


def test_base_class_asks_for_a_score():
    with pytest.raises(NotImplementedError, match="RetrievalMetric must implement `score`"):
        RetrievalMetric().update(torch.ones(2, 2), torch.zeros(2).long())
