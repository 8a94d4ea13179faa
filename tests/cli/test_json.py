"""With --json, stdout is one JSON document; everything else is on stderr."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from simtrain import evaluate
from simtrain.cli import app
from simtrain.data import read_pairs
from simtrain.encoders import NgramEncoder
from simtrain.errors import SimtrainError
from simtrain.evaluation import JudgedSearch, Qrels, write_beir
from simtrain.heads import EmptyHead
from simtrain.models import SimilarityModel

PAIRS = [
    ("how to sort a list", "sorted(iterable)"),
    ("the largest of some numbers", "max(iterable)"),
    ("round a number down", "math.floor(x)"),
    ("join strings with a separator", "str.join(iterable)"),
]
JOB = """
run_dir: run
data: {kind: pairs, train: pairs.jsonl, valid: pairs.jsonl, test: pairs.jsonl}
encoders: {type: NgramEncoder, embedding_size: 16}
head: {type: EmptyHead}
loss: {type: MultipleNegativesRankingLoss}
training: {epochs: 1, batch_size: 4, device: cpu}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"query": query, "document": document} for query, document in PAIRS]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("job.yaml").write_text(JOB)
    SimilarityModel(NgramEncoder(16), EmptyHead(16)).save("model")
    return tmp_path


def answer(*words):
    result = CliRunner().invoke(app, [*map(str, words), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.stdout)


def test_train(folder):
    found = answer("train", "job.yaml")
    assert found["model"] == "run/model"
    assert found["after"]["n_queries"] == 4
    assert set(found["seconds"]) == {"cache", "evaluation before", "training", "evaluation after"}
    assert json.loads(Path("run/metrics.json").read_text())["after"] == found["after"]


def test_evaluate_and_evaluate_embeddings_give_equal_figures(folder):
    for column in ("query", "document"):
        found = answer("encode", "model", "pairs.jsonl", f"{column}.npy", "--text-column", column)
        assert found == {"output": f"{column}.npy", "rows": 4, "dimensions": 16}
    by_model = answer("evaluate", "model", "pairs.jsonl", "-k", 2)
    by_file = answer("evaluate-embeddings", "pairs.jsonl", "query.npy", "document.npy", "-k", 2)
    assert by_model["metrics"] == pytest.approx(by_file["metrics"])
    assert "hit_rate@2" in by_model["metrics"]
    errors = answer("evaluate", "model", "pairs.jsonl", "--errors", 1)["errors"]
    assert len(errors["worst_queries"]) == 1


def test_the_divisor_of_map_and_queries_with_nothing_to_find_are_options(folder):
    rows = [{"query": f"q{n % 4}", "document": f"d{n}", "score": float(n < 11)} for n in range(12)]
    rows.append({"query": "lonely", "document": "d0", "score": 0.0})
    Path("graded.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for column in ("query", "document"):
        answer("encode", "model", "graded.jsonl", f"{column}.npy", "--text-column", column)
    saved = ("evaluate-embeddings", "graded.jsonl", "query.npy", "document.npy")
    samples = read_pairs("graded.jsonl")
    model = SimilarityModel.load("model")
    for denominator, empty in (("relevant", "zero"), ("hits", "skip"), ("min_k_relevant", "zero")):
        words = ("-k", 2, "--denominator", denominator, "--empty", empty)
        expected = evaluate(model, samples, k=2, denominator=denominator, empty=empty)
        assert expected.n_queries == (5 if empty == "zero" else 4)
        for command in (("evaluate", "model", "graded.jsonl"), saved):
            found = answer(*command, *words)
            assert found["metrics"] == pytest.approx(expected.metrics)
            assert (found["n_queries"], found["n_queries_without_match"]) == (expected.n_queries, 1)
        subset = answer("evaluate", "model", "graded.jsonl", *words, "--subset-queries", 5, "--repeats", 2)
        assert subset["mean"] == pytest.approx(expected.metrics), "a subset of all queries"
    maps = {
        name: answer("evaluate", "model", "graded.jsonl", "-k", 2, "--denominator", name)["metrics"]["map@2"]
        for name in ("min_k_relevant", "relevant", "hits")
    }
    assert maps["relevant"] < maps["min_k_relevant"] < maps["hits"]
    text = CliRunner().invoke(app, ["evaluate", "model", "graded.jsonl", "--empty", "zero"]).output
    assert "5 queries over 12 items; of these 1 have nothing to find" in text
    text = CliRunner().invoke(app, ["evaluate", "model", "graded.jsonl"]).output
    assert "4 queries over 12 items; 1 more have nothing to find" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none", "none.csv", "--denominator", "relevent"], "unknown denominator 'relevent'; did you mean 'relevant'"),
        (["none", "none.csv", "--empty", "zeros"], "unknown value of empty, 'zeros'; did you mean 'zero'"),
        (["model", "lonely.jsonl", "--empty", "error"], "1 queries have no relevant item in the gallery, such as"),
    ],
)
def test_wrong_ways_of_forming_figures_are_told(folder, words, message):
    rows = [("q", "d", 1.0), ("lonely", "d", 0.0)]
    lines = [json.dumps(dict(zip(("query", "document", "score"), row, strict=True))) + "\n" for row in rows]
    Path("lonely.jsonl").write_text("".join(lines))
    with pytest.raises(SimtrainError, match=re.escape(message)):
        CliRunner().invoke(app, ["evaluate", *words], catch_exceptions=False)


def test_a_folder_of_beir_is_evaluated_with_the_judgements_of_a_split(folder):
    queries, documents = zip(*PAIRS, strict=True)
    names = [f"q{i}" for i in range(4)], [f"d{i}" for i in range(4)]
    for split, n in (("test", 4), ("dev", 2)):
        qrels = Qrels.from_dict({names[0][i]: {names[1][i]: 2, names[1][3 - i]: 1} for i in range(n)})
        search = JudgedSearch(names[0][:n], queries[:n], names[1], documents, qrels)
        write_beir(search, "beir", split)
    write_beir(JudgedSearch(names[0], queries, names[1], documents, qrels), "beir", "dev")
    found = answer("evaluate", "model", "beir")
    assert (found["n_queries"], found["n_gallery"]) == (4, 4)
    assert answer("evaluate", "model", "beir", "--split", "dev")["n_queries"] == 2


def test_index_and_search(folder):
    assert answer("index", "model", "pairs.jsonl", "index") == {"output": "index", "documents": 4, "dimensions": 16}
    found = answer("search", "index", "max(iterable)", "-k", 2)
    assert found["query"] == "max(iterable)"
    assert [len(found["hits"]), found["hits"][0]["payload"]["text"]] == [2, "max(iterable)"]
    assert found["hits"][0]["score"] == pytest.approx(1, abs=1e-5)


def test_compare(folder):
    found = answer("compare", "model", "model", "--data", "pairs.jsonl", "-m", "mrr")
    assert found["metrics"]["mrr"]["difference"] == 0


def test_config_show_and_schema(folder):
    shown = answer("config", "show", "job.yaml", "training.epochs=7")
    assert (shown["training"]["epochs"], shown["training"]["batch_size"], shown["seed"]) == (7, 4, 0)
    assert answer("config", "schema")["properties"]["training"]["properties"]["epochs"]["default"] == 10
    assert answer("config", "check", "job.yaml") == {"config": "job.yaml", "problems": []}


def test_caches(folder):
    SimilarityModel(NgramEncoder(16, trainable=False), EmptyHead(16)).save("frozen")
    answer("encode", "frozen", "pairs.jsonl", "q.npy", "--text-column", "query", "--cache", "cache")
    assert answer("cache", "ls", "cache")[0]["rows"] == 4
    assert answer("cache", "verify", "cache")[0]["damages"] == []
    caches = answer("doctor", "--cache", "cache")["caches"]
    assert [(cache["rows"], cache["fault"]) for cache in caches] == [(4, "")]


def test_sweep(folder):
    Path("sweep.yaml").write_text("config: job.yaml\nparam_space: {optimizer.lr: {type: grid, values: [0.01, 0.02]}}\n")
    found = answer("sweep", "sweep.yaml", "run_dir=sweep")
    assert [trial["params"]["optimizer.lr"] for trial in found["trials"]] == [0.01, 0.02]
    assert found["best_config"] == "sweep/best.yaml"
    assert Path(found["best"]["run_dir"], "model").is_dir()
