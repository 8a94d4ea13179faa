from collections import Counter

import numpy as np
import pytest
import torch

from simtrain.data import SimilarityGroupSample, SimilarityPairSample
from simtrain.errors import ConfigError, DataError
from simtrain.evaluation import (
    confused_classes,
    error_report,
    likely_wrong_labels,
    near_duplicates,
    retrieval_task,
    worst_queries,
)
from simtrain.metrics import retrieval_scores


def blobs(n=60, classes=4, seed=0):
    """Points around one centre for each class, of which every seventh is labelled as another class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    points = torch.eye(classes)[labels] * 3 + torch.randn(n, classes, generator=generator) * 0.3
    given = torch.where(torch.arange(n) % 7 == 3, (labels + 1) % classes, labels)
    return points, labels, given


def test_the_worst_queries_are_those_with_the_lowest_scores():
    points = torch.randn(30, 3)
    labels = torch.arange(30) % 4
    scores = retrieval_scores(points, labels)
    unit = torch.nn.functional.normalize(points)
    similarity = (unit @ unit.T).fill_diagonal_(-2)
    expected = sorted(range(30), key=lambda i: (float(scores["map@r"][i]), float(scores["mrr"][i]), i))[:6]
    found = worst_queries(points, labels, n=6, found=3)
    assert [one.query for one in found] == expected
    for one in found:
        order = similarity[one.query].argsort(descending=True)
        assert one.found == order[:3].tolist()
        assert one.found_scores == pytest.approx(similarity[one.query][order[:3]].tolist(), abs=1e-6)
        assert one.first_relevant == 1 + (labels[order] == labels[one.query]).nonzero()[0].item()
        assert one.to_dict()["score"] == pytest.approx(float(scores["map@r"][one.query]))
    with pytest.raises(ConfigError, match="unknown metric 'map@rr'; did you mean 'map@r'"):
        worst_queries(points, labels, metric="map@rr")


@pytest.mark.parametrize("as_function", [False, True])
def test_the_worst_queries_of_a_gallery_leave_out_what_is_excluded(as_function):
    queries, gallery = torch.randn(6, 3), torch.randn(9, 3)
    hidden = torch.rand(6, 9) < 0.4
    exclude = (lambda rows, columns: hidden[rows][:, columns]) if as_function else hidden
    relevant = [[0, 1, 2], [3, 4], [5], [6, 0], [1, 7], [8, 2]]
    found = worst_queries(queries, gallery_embeddings=gallery, relevant=relevant, exclude=exclude, n=6, found=9)
    assert found
    for one in found:
        assert not hidden[one.query][one.found].any()
        assert len(one.found) == int((~hidden[one.query]).sum())
    alone = worst_queries(queries, torch.zeros(6).long(), exclude=lambda r, c: (r[:, None] + c) % 5 == 0, n=6, found=6)
    assert all(one.query not in one.found and not any((one.query + i) % 5 == 0 for i in one.found) for one in alone)


@pytest.mark.parametrize("k", [1, 3])
def test_confused_classes_are_counted_over_the_neighbours(k):
    points, _, labels = blobs()
    names = [f"class {label}" for label in labels.tolist()]
    unit = torch.nn.functional.normalize(points)
    near = (unit @ unit.T).fill_diagonal_(-2).topk(k, dim=1).indices
    counts = Counter((names[i], names[j]) for i in range(60) for j in near[i].tolist() if names[i] != names[j])
    found = confused_classes(points, names, n=100, k=k)
    assert {(one.label, one.other): one.count for one in found} == dict(counts)
    assert [one.count for one in found] == sorted(counts.values(), reverse=True)
    for one in found:
        assert one.share == pytest.approx(one.count / (k * names.count(one.label)))
    assert found[0].to_dict()["label"] == found[0].label


def test_wrong_labels_are_found_and_right_ones_are_not():
    points, true, given = blobs()
    suspects = likely_wrong_labels(points, given, n=100, k=8)
    wrong = (true != given).nonzero()[:, 0].tolist()
    assert {one.item for one in suspects} == set(wrong)
    for one in suspects:
        assert one.suggested == true[one.item]
        assert one.label == given[one.item]
        assert one.share > one.own_share
    unit = torch.nn.functional.normalize(points)
    cosine, near = (unit @ unit.T).fill_diagonal_(-2).topk(8, dim=1)
    first = suspects[0]
    votes = {
        int(label): float(cosine[first.item].clamp(min=0)[given[near[first.item]] == label].sum()) for label in range(4)
    }
    assert first.share == pytest.approx(max(votes.values()) / sum(votes.values()), abs=1e-6)
    assert likely_wrong_labels(points, true, k=8) == []


def test_items_on_both_sides_of_a_split_are_found():
    train, test = torch.randn(40, 6), torch.randn(20, 6)
    test[3], test[7] = train[11] * 5, train[30] + 0.01 * torch.randn(6)
    found = near_duplicates(test, train, threshold=0.99)
    assert [(one.item, one.other) for one in found] == [(3, 11), (7, 30)]
    assert found[0].score == pytest.approx(1.0)
    assert [one.item for one in near_duplicates(test, train, 0.99, n=1)] == [3]
    assert near_duplicates(test[:3], train, 0.999) == []
    with pytest.raises(ConfigError, match="threshold is a cosine, from -1 to 1, got 2"):
        near_duplicates(test, train, 2)


def test_a_report_shows_the_items():
    points, _, labels = blobs()
    samples = [SimilarityGroupSample(f"text {row}", int(label)) for row, label in enumerate(labels)]
    report = error_report(retrieval_task(samples), points, n=4, others=(["seen"], points[5:6]))
    assert list(report) == ["worst_queries", "confused_classes", "likely_wrong_labels", "near_duplicates"]
    assert all(entry["item"] == f"text {entry['query']}" for entry in report["worst_queries"])
    assert report["near_duplicates"][0]["text"] == "text 5"
    assert report["near_duplicates"][0]["other_text"] == "seen"
    pairs = [SimilarityPairSample(f"q{row}", f"d{row}") for row in range(30)]
    report = error_report(retrieval_task(pairs), points[:30], points[30:], n=4)
    assert list(report) == ["worst_queries"]
    assert report["worst_queries"][0]["found_items"][0].startswith("d")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: confused_classes(p, [0] * 6, p), ConfigError, "give gallery_labels with gallery_embeddings"),
        (lambda p: confused_classes(p, [0] * 3), DataError, "got 3 labels for 6 queries; give one label each"),
        (lambda p: confused_classes(p, [0] * 6, p, [0]), DataError, "got 1 labels for 6 gallery items"),
        (lambda p: confused_classes(p, [0] * 6, n=0), ConfigError, "n is a positive integer, got 0"),
        (lambda p: likely_wrong_labels(p, [0] * 3), DataError, "got 3 labels for 6 items"),
        (lambda p: likely_wrong_labels(p, [0] * 7), DataError, "got 7 labels for 6 items"),
        (lambda p: likely_wrong_labels(p, [0] * 6, n=-1), ConfigError, "n is a positive integer, got -1"),
        (lambda p: likely_wrong_labels(p, [0] * 6, k=0), ConfigError, "k is a positive integer, got 0"),
        (lambda p: worst_queries(p, [0] * 6, n=-1), ConfigError, "n is a positive integer, got -1"),
        (lambda p: worst_queries(p, [0] * 5), DataError, "got 5 labels for 6 queries"),
    ],
)
def test_what_does_not_fit_is_told(call, error, message):
    with pytest.raises(error, match=message):
        call(torch.randn(6, 3))


def test_nothing_to_find_and_few_items():
    points = torch.randn(3, 2)
    assert worst_queries(points, ["a", "b", "c"]) == []
    assert likely_wrong_labels(points[:1], ["a"]) == []
    assert confused_classes(points[:1], ["a"]) == []
    assert confused_classes(points, ["a"] * 3, k=9) == []
    assert near_duplicates(points, points[:0]) == []


def test_labels_that_float32_cannot_tell_apart_are_different():
    points = torch.tensor([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0], [0.01, 1.0]])
    labels = torch.tensor([16_777_216, 16_777_217, 16_777_216, 16_777_217])
    assert [one.count for one in confused_classes(points, labels)] == [2, 2]
    assert np.array_equal([one.label for one in confused_classes(points, labels)], [16_777_216, 16_777_217])


@pytest.mark.parametrize("n", [0, -1])
def test_a_number_of_duplicates_is_positive(n):
    with pytest.raises(ConfigError, match=f"n is a positive integer, got {n}"):
        near_duplicates(torch.eye(3), torch.eye(3), n=n)
