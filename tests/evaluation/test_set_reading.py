"""Test sets of every kind, from Python and from the command."""

import json

import pytest
import torch
from typer.testing import CliRunner

from simtrain import SimilarityModel, evaluate
from simtrain.cli import app
from simtrain.data import QueryGallery, SimilarityGroupDataset
from simtrain.encoders import NgramEncoder
from simtrain.errors import ConfigError, DataError, SimtrainError
from simtrain.evaluation import (
    JudgedSearch,
    Qrels,
    QueryScores,
    error_report,
    evaluate_subsets,
    image_sets,
    read_beir,
    read_test_set,
    retrieval_task,
    write_beir,
)
from simtrain.evaluation.set_reading import FOLDERS, KINDS, TABLES
from simtrain.heads import EmptyHead

TEXTS = ["how to sort a list", "largest of some numbers", "round a number", "join some strings", "open a file", "wait"]
CODE = ["sorted(list)", "max(numbers)", "round(number)", "str.join(strings)", "open(file)", "time.sleep(seconds)"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"query": a, "document": b, "item": a, "group": b[:1]} for a, b in zip(TEXTS, CODE, strict=True)]
    rows = [{**row, "is_query": number < 3, "is_gallery": True} for number, row in enumerate(rows)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    qrels = {f"q{n}": {f"d{n}": 2, f"d{(n + 1) % 6}": 1} for n in range(6)}
    names = [[f"{letter}{n}" for n in range(6)] for letter in "qd"]
    write_beir(JudgedSearch(names[0], TEXTS, names[1], CODE, Qrels.from_dict(qrels)), tmp_path / "beir")
    SimilarityModel(NgramEncoder(64), EmptyHead(64)).save("model")
    return tmp_path


def run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_tables_and_beir_folders_are_read(folder):
    assert [pair.obj_b for pair in read_test_set("rows.jsonl")] == CODE
    assert [sample.obj for sample in read_test_set("rows.jsonl", "groups")] == TEXTS
    assert isinstance(read_test_set("rows.jsonl", "query_gallery"), QueryGallery)
    renamed = read_test_set("rows.jsonl", columns={"document": "query"})
    assert [pair.obj_b for pair in renamed] == TEXTS
    for kind in ("pairs", "beir", "groups"):
        assert read_test_set("beir", kind).document_ids == [f"d{n}" for n in range(6)]
    with pytest.raises(DataError, match=r"has no qrels/dev\.tsv"):
        read_test_set("beir", split="dev")


def test_every_benchmark_has_a_kind(tmp_path):
    readers = [name for name in image_sets.__all__ if name.startswith("read_")]
    assert len(readers) == len(FOLDERS) == 5
    assert set(KINDS) == {*TABLES, "beir", *FOLDERS}
    for kind in FOLDERS:
        with pytest.raises(DataError, match=r"should have the file '.*\.(txt|mat)'.*; it has none"):
            read_test_set(tmp_path, kind)


def test_other_folders_and_kinds_are_refused(tmp_path):
    with pytest.raises(
        ConfigError, match=r"is a folder: give one in BEIR's format .*cub200 or cars196.*got kind pairs"
    ):
        read_test_set(tmp_path)
    with pytest.raises(ConfigError, match="unknown kind of test set 'biir'; did you mean 'beir'"):
        read_test_set(tmp_path, "biir")


def test_the_command_measures_a_beir_folder_and_compare_takes_its_scores(folder):
    printed = run("evaluate", "model", "beir", "-k", 3, "--scores", "scores.json", "--output", "figures.json")
    model = SimilarityModel.load("model")
    expected = evaluate(model, read_beir("beir"), k=3)
    assert f"| ndcg@3      | {expected.metrics['ndcg@3']:.3f} |" in printed
    assert json.loads((folder / "figures.json").read_text())["metrics"] == pytest.approx(expected.metrics)
    assert QueryScores.load("scores.json").query_ids == [f"q{n}" for n in range(6)]
    # The same queries by the same names: the saved scores and the model differ in nothing.
    same = json.loads(run("compare", "scores.json", "model", "--data", "beir", "-m", "ndcg@3", "-m", "mrr", "--json"))
    assert same["n_queries"] == 6
    assert [same["metrics"][name]["difference"] for name in ("ndcg@3", "mrr")] == pytest.approx([0.0, 0.0])


def test_the_command_tells_how_many_queries_have_nothing_to_find(folder):
    rows = [
        {"query": a, "document": b, "score": float(n != 2)} for n, (a, b) in enumerate(zip(TEXTS, CODE, strict=True))
    ]
    (folder / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "5 queries over 6 items; 1 more have nothing to find" in run("evaluate", "model", "some.jsonl")
    assert "6 queries over 6 items\n" in run("evaluate", "model", "rows.jsonl")


def test_the_command_measures_subsets(folder):
    words = ("evaluate", "model", "rows.jsonl", "-k", 1, "--subset-queries", 3, "--repeats", 4, "--seed", 7)
    printed = run(*words, "--output", "figures.json")
    expected = evaluate_subsets(SimilarityModel.load("model"), read_test_set("rows.jsonl"), 3, 4, 7, k=1)
    assert json.loads((folder / "figures.json").read_text()) == expected.as_dict()
    assert printed.strip() == expected.table()
    assert "| metric      | mean of 4 | deviation |" in printed
    with pytest.raises(SimtrainError, match="--errors and --scores are of the whole test set"):
        run(*words, "--errors", 2)


def test_an_error_analysis_encodes_nothing_twice(folder, monkeypatch):
    encoded = []
    plain = SimilarityModel.encode
    monkeypatch.setattr(
        SimilarityModel, "encode", lambda self, items, **o: encoded.append(len(items)) or plain(self, items, **o)
    )
    assert "confused classes" in run("evaluate", "model", "rows.jsonl", "--kind", "groups", "--errors", 2)
    assert encoded == [6]


def test_classes_are_called_by_their_names(folder):
    points = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    dataset = SimilarityGroupDataset(list(zip(TEXTS, ["list", "number"] * 3, strict=True)))
    report = error_report(retrieval_task(dataset), points)
    assert {entry[side] for entry in report["confused_classes"] for side in ("label", "other")} == {"list", "number"}
    labels = {entry[side] for entry in report["likely_wrong_labels"] for side in ("label", "suggested")}
    assert labels == {"list", "number"}
    test = QueryGallery(["a"], ["b", "c"], [0], [1, 0], label_names={0: "cat", 1: "dog"})
    report = error_report(retrieval_task(test), torch.eye(2)[:1], torch.eye(2))
    assert report["confused_classes"] == [{"label": "cat", "other": "dog", "count": 1, "share": 1.0}]
