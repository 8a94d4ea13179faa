"""What the README shows works as it is printed there."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from typer.testing import CliRunner

from simtrain import SimilarityModel, TrainableModel, load_cfg
from simtrain.cli import app
from simtrain.data import SimilarityGroupSample
from simtrain.encoders import NgramEncoder
from simtrain.evaluation import JudgedSearch, Qrels, search_run, write_beir, write_qrels, write_run
from simtrain.heads import EmptyHead
from simtrain.runner.sweep import load_sweep

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    fenced = README.split("```")[1::2]
    return [block.removeprefix(language + "\n") for block in fenced if block.startswith(language + "\n")]


def write_pairs(path: Path, query: str, document: str, n: int) -> None:
    rows = [{query: f"question number {i} about topic {i % 7}", document: f"answer number {i}"} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    found = blocks("python")
    assert len(found) == 6
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / "train.jsonl", "query", "document", 24)
    write_pairs(tmp_path / "test.jsonl", "query", "document", 8)
    names: dict[str, object] = {}
    exec(found[0], names)
    assert names["vector"].shape == (384,)
    assert (tmp_path / "model" / "config.json").is_file()
    exec(found[1], names)
    assert names["model"].has_sides
    exec(found[2], names)
    exec(found[3], names)
    assert torch.isfinite(names["loss"])
    assert names["model"].num_trainable_parameters == 16 + 1
    exec(found[4], names)
    assert re.findall(r"^epoch (\d): \d", capsys.readouterr().out, re.MULTILINE) == ["1", "2", "3"]
    write_beir(judged(), tmp_path / "my_beir")
    exec(found[5], names)
    assert names["report"]["n_queries"] == 100
    assert names["result"].n_queries == 6
    assert "my_beir" in capsys.readouterr().out
    held_out = names["HeldOutRetrieval"]("my_beir", names=["ndcg@10"])
    assert held_out.evaluate_model(names["model"]) == {"ndcg@10": names["result"].metrics["ndcg@10"]}


def judged() -> JudgedSearch:
    names = [[f"{letter}{n}" for n in range(6)] for letter in "qd"]
    texts = [[f"{word} number {n}" for n in range(6)] for word in ("question", "answer")]
    return JudgedSearch(
        names[0], texts[0], names[1], texts[1], Qrels.from_dict({f"q{n}": {f"d{n}": 1} for n in range(6)})
    )


def test_the_commands_that_measure_run_as_they_are_printed(tmp_path, monkeypatch):
    [block] = [block for block in blocks("") if "simtrain compare" in block]
    commands = [shlex.split(line.partition("#")[0])[1:] for line in block.splitlines() if line.startswith("simtrain")]
    assert len(commands) == 6
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / "train.jsonl", "query", "document", 24)
    write_pairs(tmp_path / "test.jsonl", "query", "document", 8)
    write_beir(judged(), "my_beir")
    write_qrels(judged().qrels, "qrels.txt")
    for name in ("model", "tuned"):
        SimilarityModel(NgramEncoder(32), EmptyHead(32)).save(name)
    for name in ("old.run", "new.run"):
        write_run(search_run(SimilarityModel.load("model"), judged()), name)
    printed = []
    for words in commands:
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0, (words, done.output)
        printed.append(done.stdout)
    assert "6 queries over 6 items" in printed[0]
    assert "near duplicates: 5" in printed[1], "the test questions are among the training ones"
    assert "| ndcg@10 | " in printed[4]
    assert "| +0.0000" in printed[5], "both runs are of one model"


def test_the_config_of_the_readme_is_accepted():
    found = blocks("yaml")
    job, losses = found
    assert load_cfg(OmegaConf.create(job)).data.columns.document == "answer"
    parts = OmegaConf.to_container(OmegaConf.create(losses))
    model = TrainableModel.from_cfg({"encoders": {"type": "PrecomputedEncoder", "embedding_size": 4}} | parts)
    assert model.train_step([SimilarityGroupSample(torch.randn(4), i % 2) for i in range(8)])["loss"] > 0


def test_the_sweep_of_the_readme_is_accepted():
    [block] = [block for block in blocks("") if "param_space:" in block]
    job = OmegaConf.to_container(OmegaConf.create(blocks("yaml")[0]))
    job["data"]["valid"] = "valid.csv"
    sweep = load_sweep({**OmegaConf.to_container(OmegaConf.create(block)), "config": job})
    assert [param.key for param in sweep.space.params] == ["optimizer.lr", "loss.scale"]


def test_the_commands_of_the_readme_exist():
    used = {word for block in blocks("") for word in re.findall(r"^\$? ?simtrain (\w+)", block, re.MULTILINE)}
    assert {"train", "evaluate", "index", "search", "encode"} <= used
    commands = {command.callback.__name__ for command in app.registered_commands}
    assert used <= commands | {group.typer_instance.info.name for group in app.registered_groups}


@pytest.mark.parametrize("script", re.findall(r"`(benchmarks/[\w/]+\.py)", README))
def test_the_scripts_that_the_readme_names_exist(script):
    assert (Path(__file__).parents[1] / script).is_file()
