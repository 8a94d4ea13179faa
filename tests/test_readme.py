"""What the README shows works as it is printed there."""

import json
import re
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from simtrain import TrainableModel, load_cfg
from simtrain.cli import app
from simtrain.data import SimilarityGroupSample

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    fenced = README.split("```")[1::2]
    return [block.removeprefix(language + "\n") for block in fenced if block.startswith(language + "\n")]


def write_pairs(path: Path, query: str, document: str, n: int) -> None:
    rows = [{query: f"question number {i} about topic {i % 7}", document: f"answer number {i}"} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    found = blocks("python")
    assert len(found) == 4
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


def test_the_config_of_the_readme_is_accepted():
    found = blocks("yaml")
    job, losses = found
    assert load_cfg(OmegaConf.create(job)).data.columns.document == "answer"
    parts = OmegaConf.to_container(OmegaConf.create(losses))
    model = TrainableModel.from_cfg({"encoders": {"type": "PrecomputedEncoder", "embedding_size": 4}} | parts)
    assert model.train_step([SimilarityGroupSample(torch.randn(4), i % 2) for i in range(8)])["loss"] > 0


def test_the_commands_of_the_readme_exist():
    used = {word for block in blocks("") for word in re.findall(r"^\$? ?simtrain (\w+)", block, re.MULTILINE)}
    assert {"train", "evaluate", "index", "search", "encode"} <= used
    assert used <= {command.callback.__name__ for command in app.registered_commands}


@pytest.mark.parametrize("script", re.findall(r"`(benchmarks/[\w/]+\.py)", README))
def test_the_scripts_that_the_readme_names_exist(script):
    assert (Path(__file__).parents[1] / script).is_file()
