import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from simtrain.cli import app
from simtrain.config.keys import schema_keys

WRONG = """
run_dir: run
epochs: 3
seed: -1
data: {train: none.jsonl, valid: {path: none.jsonl, knd: pairs}}
loss: {type: TripletLos}
head: {type: EmptyHead, output_sizes: [3]}
cache: {cache_typ: cpu}
training: {precision: half, batch_size: many, fp16: true}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("wrong.yaml").write_text(WRONG)


def run(*words):
    return CliRunner().invoke(app, ["config", *words], catch_exceptions=False)


def test_check_names_all_that_is_wrong_and_exits_with_2(folder):
    result = run("check", "wrong.yaml", "--json")
    assert result.exit_code == 2
    problems = json.loads(result.stdout)["problems"]
    expected = [
        "the config has an unknown key 'epochs'; did you mean 'training.epochs'?",
        "the config's key 'training.fp16' is 'training.precision' here; write training.precision: 16-mixed",
        "the config's value for 'training.batch_size' does not fit: Value 'many' of type 'str' could not be converted",
        "seed should be from 0 to 4294967295, got -1",
        "unknown training.precision 'half'; accepted: '16-mixed'",
        "unknown loss type 'TripletLos'; did you mean 'TripletLoss'",
        "head 'EmptyHead' has no setting 'output_sizes'; accepted:",
        "the config gives no value for 'encoders'; add it to the file or as encoders=…",
        "the config's section 'cache' has no setting 'cache_typ'; did you mean 'cache_type'",
        "data.train: there is no file or folder 'none.jsonl'",
        "data.valid has no setting 'knd'; did you mean 'kind'",
    ]
    for sentence in expected:
        assert [problem for problem in problems if problem.startswith(sentence)], sentence
    assert len(problems) == len(expected)
    assert run("check", "wrong.yaml").stdout.splitlines() == problems
    assert not Path("run").exists()


def test_check_of_a_right_config_exits_with_0(folder):
    Path("train.jsonl").write_text('{"query": "a", "document": "b"}\n')
    Path("job.yaml").write_text(
        "{data: {train: train.jsonl}, encoders: {type: NgramEncoder}, loss: {type: MultipleNegativesRankingLoss}}"
    )
    result = run("check", "job.yaml")
    assert (result.exit_code, result.stdout) == (0, "job.yaml is right\n")
    assert run("check", "job.yaml", "training.epochs=0").stdout == "training.epochs should be at least 1, got 0\n"


def test_schema_prints_each_key_with_type_default_and_doc():
    text = run("schema").stdout
    keys = list(schema_keys())
    assert len(keys) > 30
    for key in keys:
        assert re.search(
            rf"^{re.escape(key.name)}: .+, (required|default .+)\n    {re.escape(key.doc)}$", text, re.M
        ), key
    assert "training.epochs: integer, default 10\n    Passes over the training data." in text
    assert "loss: mapping, required\n" in text
    assert "\n# training: How the training loop runs.\n" in text


def test_show_prints_the_resolved_file(folder):
    Path("job.yaml").write_text("{seed: 5, training: {epochs: '${seed}'}}")
    assert "epochs: 5" in run("show", "job.yaml").stdout
    assert "epochs: 10" in run("show").stdout
