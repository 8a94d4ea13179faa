"""Saved embeddings, several test sets, graded pairs, subsets."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import spearmanr

from simtrain import SimilarityModel, evaluate
from simtrain.data import QueryGallery, SimilarityGroupSample, SimilarityPairSample, SimilarityTripletSample
from simtrain.encoders import PrecomputedEncoder
from simtrain.errors import ConfigError, DataError
from simtrain.evaluation import (
    JudgedSearch,
    Qrels,
    evaluate_embeddings,
    evaluate_subsets,
    read_embeddings,
    retrieval_task,
)
from simtrain.evaluation.subsets import subsets
from simtrain.heads import EmptyHead

MODEL = SimilarityModel(PrecomputedEncoder(3), EmptyHead(3))
POINTS = [tuple(row) for row in torch.randn(60, 3, generator=torch.Generator().manual_seed(2)).tolist()]
GROUPS = [SimilarityGroupSample(point, number % 7) for number, point in enumerate(POINTS)]
PAIRS = [SimilarityPairSample(POINTS[row // 2], POINTS[30 + row % 20]) for row in range(30)]
GALLERY = QueryGallery(
    POINTS[:20], POINTS, [n % 7 for n in range(20)], [n % 7 for n in range(60)], list(range(20)), list(range(60))
)


def rows(items):
    return torch.tensor(list(items))


@pytest.mark.parametrize("suffix", ["npy", "npz", "safetensors", "folder"])
def test_saved_embeddings_give_what_the_model_gives(tmp_path, suffix):
    def saved(name, values):
        path = tmp_path / f"{name}.{suffix}"
        if suffix == "npy":
            np.save(path, values.numpy())
        elif suffix == "npz":
            np.savez(path, embeddings=values.numpy(), ids=np.arange(len(values)))
        elif suffix == "safetensors":
            save_file({"anything": values}, path)
        else:
            path.mkdir()
            for part, chunk in enumerate(values.split(11)):
                np.save(path / f"part-{part:03}.npy", chunk.numpy())
            (path / "note.txt").write_text("not an array")
        return path

    def same(data, *paths):
        given, expected = evaluate_embeddings(data, *paths, k=(1, 3)), evaluate(MODEL, data, k=(1, 3))
        assert given.metrics == pytest.approx(expected.metrics)
        assert (given.n_queries, given.n_gallery) == (expected.n_queries, expected.n_gallery)

    same(GROUPS, saved("groups", rows(POINTS)))
    same(PAIRS, saved("a", rows(pair.obj_a for pair in PAIRS)), saved("b", rows(pair.obj_b for pair in PAIRS)))
    same(GALLERY, saved("q", rows(POINTS[:20])), saved("g", rows(POINTS)))


def test_what_does_not_fit_is_told(tmp_path):
    everything = rows(POINTS)
    for data, given, message in (
        (GROUPS, (everything[:5],), "embeddings has 5 rows for 60 samples; give one a sample"),
        (GROUPS, (everything, everything), "groups are searched among themselves: give their embeddings alone"),
        (PAIRS, (everything[:30],), "the data have documents: give their embeddings as gallery_embeddings"),
        ([SimilarityTripletSample("a", "b", ["c"])], (everything,), "saved embeddings of triplets have no rows"),
        (GROUPS, (tmp_path / "none.npy",), "there is no file or folder .*none.npy"),
        (GROUPS, (tmp_path,), "has no file of embeddings"),
    ):
        with pytest.raises(DataError, match=message):
            evaluate_embeddings(data, *given)
    (tmp_path / "broken.npy").write_bytes(b"no array")
    np.save(tmp_path / "flat.npy", np.zeros(3))
    np.save(tmp_path / "whole.npy", np.zeros((3, 2), dtype=np.int64))
    np.save(tmp_path / "code.npy", np.array([{"a": 1}]), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=np.zeros((1, 2)), b=np.zeros((1, 2)))
    (tmp_path / "broken.safetensors").write_bytes(b"12345678901234567890")
    (tmp_path / "table.csv").write_text("")
    for name, message in (
        ("broken.npy", "broken.npy cannot be read as embeddings"),
        ("flat.npy", r"should hold floating-point rows of shape \(rows, dim\), got torch.float64 of shape \(3,\)"),
        ("whole.npy", "got torch.int64 of shape"),
        ("code.npy", "cannot be read as embeddings"),
        ("two.npz", r"should hold an array called 'embeddings', or one alone, got \['a', 'b'\]"),
        ("broken.safetensors", "cannot be read as embeddings"),
        ("table.csv", "embeddings are read from .npy, .npz, .safetensors or a folder"),
    ):
        with pytest.raises(DataError, match=message):
            read_embeddings(tmp_path / name)


def test_several_test_sets_are_measured_at_once():
    together = evaluate(MODEL, {"groups": GROUPS, "pairs": PAIRS, "gallery": GALLERY}, k=(2,))
    for name, data in (("groups", GROUPS), ("pairs", PAIRS), ("gallery", GALLERY)):
        assert together[name].metrics == evaluate(MODEL, data, k=(2,)).metrics


def test_graded_pairs_are_correlated_with_their_similarity():
    scores = [round(0.1 * (row % 10), 1) for row in range(30)]
    graded = [SimilarityPairSample(pair.obj_a, pair.obj_b, score=s) for pair, s in zip(PAIRS, scores, strict=True)]
    result = evaluate(MODEL, graded, k=(1,))
    cosines = torch.cosine_similarity(rows(p.obj_a for p in graded), rows(p.obj_b for p in graded), dim=1)
    expected = spearmanr(cosines, scores).statistic
    assert result.metrics["spearman"] == pytest.approx(expected, abs=1e-6)
    low, high = result.interval("spearman")
    assert low < expected < high
    assert result.as_dict()["intervals"]["spearman"] == [low, high]
    assert "spearman" not in evaluate(MODEL, PAIRS).metrics
    with pytest.raises(ConfigError, match="'spearman' is no metric of single queries"):
        result.compare(result, "spearman")


def test_results_are_saved_all_or_nothing(tmp_path, monkeypatch):
    result, path = evaluate(MODEL, GROUPS, k=(1,)), tmp_path / "figures.json"
    result.save(path)
    assert json.loads(path.read_text())["metrics"] == pytest.approx(result.metrics)
    before = path.read_text()
    monkeypatch.setattr(type(result), "as_dict", lambda self: {"metrics": {1, 2}})
    with pytest.raises(TypeError):
        result.save(path)
    assert path.read_text() == before
    assert [file.name for file in tmp_path.iterdir()] == ["figures.json"]


def test_subsets_are_seeded_and_their_spread_is_given():
    first = evaluate_subsets(MODEL, GROUPS, n_queries=25, repeats=4, seed=3, k=(1,))
    assert first.as_dict() == evaluate_subsets(MODEL, GROUPS, n_queries=25, repeats=4, seed=3, k=(1,)).as_dict()
    assert first.as_dict() != evaluate_subsets(MODEL, GROUPS, n_queries=25, repeats=4, seed=4, k=(1,)).as_dict()
    values = [result.metrics["mrr"] for result in first.results]
    assert len(set(values)) > 1
    assert first.mean["mrr"] == pytest.approx(np.mean(values))
    assert first.deviation["mrr"] == pytest.approx(np.std(values, ddof=1))
    assert evaluate_subsets(MODEL, GROUPS, n_queries=5, repeats=1).deviation["mrr"] == 0.0
    whole = evaluate_subsets(MODEL, GROUPS, n_queries=1000, repeats=2)
    assert whole.mean == pytest.approx(evaluate(MODEL, GROUPS).metrics)
    assert json.loads(json.dumps(first.as_dict()))["n_subsets"] == 4


def of_group(task, group):
    return {item for item, other in zip(task.gallery, task.gallery_groups, strict=True) if other == group}


@pytest.mark.parametrize("data", [PAIRS, GALLERY])
def test_a_subset_of_a_gallery_keeps_what_is_relevant(data):
    task = retrieval_task(data)
    for part in subsets(task, 6, 3, n_gallery=14):
        assert len(part.queries) == 6
        assert len(part.gallery) >= min(14, len(task.gallery))
        place = {query: row for row, query in enumerate(task.queries)}
        for row, query in enumerate(part.queries):
            if task.relevant is not None:
                whole = {task.gallery[item] for number, item in task.relevant.tolist() if number == place[query]}
                kept = {part.gallery[item] for number, item in part.relevant.tolist() if number == row}
            else:
                whole = {
                    item
                    for item, group in zip(task.gallery, task.gallery_groups, strict=True)
                    if group == task.groups[place[query]]
                }
                kept = {
                    item
                    for item, group in zip(part.gallery, part.gallery_groups, strict=True)
                    if group == part.groups[row]
                }
                left_out = part.exclude(torch.tensor([row]), torch.arange(len(part.gallery)))[0]
                assert [item for item, out in zip(part.gallery, left_out, strict=True) if out] == [query]
            assert kept == whole
    everything = evaluate_subsets(MODEL, data, n_queries=1000, repeats=1)
    assert everything.mean == pytest.approx(evaluate(MODEL, data).metrics)
    assert evaluate_subsets(MODEL, data, n_queries=6, repeats=2).results[0].n_gallery == len(task.gallery)


def test_a_subset_keeps_the_grades_of_what_is_relevant():
    names = [f"d{row}" for row in range(30)]
    qrels = Qrels.from_dict({f"q{row}": {names[row]: 1, names[(row + 7) % 30]: 3} for row in range(20)})
    test = JudgedSearch([f"q{row}" for row in range(20)], POINTS[:20], names, POINTS[20:50], qrels)
    whole = evaluate(MODEL, test, k=3)
    subset = evaluate_subsets(MODEL, test, n_queries=1000, repeats=1, k=3)
    assert subset.mean == pytest.approx(whole.metrics)
    [part] = subsets(retrieval_task(test), 5, 1, n_gallery=12)
    assert sorted(set(part.gains.tolist())) == [1.0, 3.0]
    assert len(part.gains) == len(part.relevant) == 10


def test_numbers_of_subsets_are_positive():
    for words in ({"n_queries": 0}, {"n_queries": 1, "repeats": 0}, {"n_queries": 1, "n_gallery": 0}):
        with pytest.raises(ConfigError, match="should be a positive integer, got 0"):
            evaluate_subsets(MODEL, GROUPS, **words)
