"""Jobs on images, on query/gallery tables, and on data of another kind in each stage."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from simtrain import SimilarityModel, fit, registry
from simtrain.encoders import VisionEncoder
from simtrain.errors import ConfigError, DataError, UnknownNameError


class TinyVision(VisionEncoder):
    """A registered encoder that builds its own backbone, as jobs want it."""

    def __init__(self, width=8, seed=0, trainable=False):
        self._words = {"width": width, "seed": seed, "trainable": trainable}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            backbone = nn.Sequential(nn.Conv2d(3, width, 4, stride=4), nn.ReLU())
        super().__init__(backbone, image_size=16, trainable=trainable)

    def get_config_dict(self):
        return self._words


@pytest.fixture(autouse=True, scope="module")
def _registered():
    if "TinyVisionOfJobs" not in registry.encoders:
        registry.encoders.register_module("TinyVisionOfJobs")(TinyVision)


def draw(path, hue, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-30, 30, (20, 20, 3))
    Image.fromarray(np.clip(np.array(hue) + noise, 0, 255).astype(np.uint8)).save(path)


HUES = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200), "gray": (120, 120, 120)}


def draw_folder(root, names, per_class=4):
    for name in names:
        for number in range(per_class):
            draw(root / name / f"{number}.png", HUES[name], number)
    return root


def job(tmp_path, **data):
    return {
        "run_dir": str(tmp_path / "run"),
        "data": {"kind": "groups", **data},
        "encoders": {"type": "TinyVisionOfJobs"},
        "head": {"type": "LinearHead", "output_size": 4},
        "loss": {"type": "TripletLoss", "margin": 0.2},
        "cache": {"cache_type": "cpu"},
        "training": {"epochs": 1, "batch_size": 6, "device": "cpu"},
    }


def test_folders_of_images_train_and_test(tmp_path):
    train = draw_folder(tmp_path / "train", ["red", "green", "blue"])
    test = draw_folder(tmp_path / "test", ["gray", "red"])
    result = fit(job(tmp_path, train=str(train), valid=str(test), test={"path": str(test), "on_error": "skip"}))
    assert (result.after.n_queries, result.label_names) == (8, {0: "blue", 1: "green", 2: "red"})
    assert json.loads((result.run_dir / "labels.json").read_text())


def oml_table(tmp_path):
    lines = ["path,label,split,is_query,is_gallery"]
    for number, (name, hue) in enumerate(HUES.items()):
        for copy in range(3):
            file = f"photos/{name}{copy}.png"
            draw(tmp_path / file, hue, copy)
            valid = name in ("blue", "gray")
            role = ("True,True" if copy else "True,False") if valid else ","
            lines.append(f"{file},{number},{'validation' if valid else 'train'},{role}")
    (tmp_path / "df.csv").write_text("\n".join(lines) + "\n")
    return str(tmp_path / "df.csv")


def test_one_table_with_the_columns_of_open_metric_learning(tmp_path):
    table = oml_table(tmp_path)
    test = {"path": table, "split": "validation", "kind": "query_gallery"}
    result = fit(job(tmp_path, train={"path": table, "split": "train"}, test=test))
    # Six queries search four gallery items; no item finds itself.
    assert (result.after.n_queries, result.after.n_gallery) == (6, 4)
    assert result.label_names == {0: 0, 1: 1}
    assert SimilarityModel.load(result.model_path).encode([tmp_path / "photos" / "red0.png"]).shape == (1, 4)


def text_job(tmp_path, **data):
    rows = [{"query": f"{word} {i}", "document": f"about {word} {i}"} for word in ("hats", "bags") for i in range(4)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    groups = [{"item": f"{word} {i}", "group": word} for word in ("hats", "bags") for i in range(3)]
    (tmp_path / "groups.jsonl").write_text("".join(json.dumps(row) + "\n" for row in groups))
    return {
        **job(tmp_path, **{"kind": "pairs", "train": str(tmp_path / "pairs.jsonl"), **data}),
        "encoders": {"type": "NgramEncoder", "embedding_size": 16},
        "head": {"type": "SkipConnectionHead"},
        "loss": {"type": "MultipleNegativesRankingLoss"},
        "cache": None,
    }


def test_a_test_of_another_kind_than_the_training(tmp_path):
    result = fit(text_job(tmp_path, test={"path": str(tmp_path / "groups.jsonl"), "kind": "groups"}))
    assert (result.after.n_queries, result.after.n_gallery) == (6, 5)


def test_a_stage_has_columns_of_its_own(tmp_path):
    (tmp_path / "other.csv").write_text("q,d\nhats 1,about hats 1\nbags 1,about bags 1\n")
    test = {"path": str(tmp_path / "other.csv"), "columns": {"query": "q", "document": "d"}}
    assert fit(text_job(tmp_path, test=test)).after.n_queries == 2


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (
            {"valid": {"path": "GROUPS", "kind": "groups"}},
            ConfigError,
            r"takes pairs or triplets, but data\.valid\.kind",
        ),
        ({"valid": {"path": "GROUPS", "kind": "query_gallery"}}, ConfigError, "query_gallery is for data.test"),
        ({"test": {"path": "GROUPS", "kind": "grups"}}, ConfigError, r"unknown data\.test\.kind 'grups'; did you mean"),
        ({"test": {"kind": "groups"}}, ConfigError, r"data\.test should be a path, or a mapping with a path"),
        ({"test": 3}, ConfigError, r"data\.test should be a path, or a mapping with a path .*, got 3"),
        ({"test": {"path": "GROUPS", "colums": {}}}, ConfigError, "no setting 'colums'; did you mean 'columns'"),
        (
            {"test": {"path": "GROUPS", "split": "x"}},
            ConfigError,
            r"data\.test\.split does not go with data of the kind",
        ),
        ({"test": {"path": "GROUPS", "split": 1}}, ConfigError, r"data\.test\.split should be a text, got 1"),
        ({"test": {"path": "GROUPS", "on_error": "x"}}, ConfigError, r"data\.test\.on_error should be raise or skip"),
        ({"test": {"path": "GROUPS", "kind": "query_gallery"}}, DataError, "there is no column 'is_query'"),
        (
            {"columns": {"query": None}},
            ConfigError,
            r"columns of data.train: query should be the name of a column, got",
        ),
        ({"columns": {"query": 3}}, DataError, r"line 1: there is no column '3'; accepted: "),
        ({"train": "FOLDER"}, ConfigError, r"data\.train: '.*' is a folder, .* should be 'groups' then, got 'pairs'"),
        ({"test": {"path": "FOLDER", "kind": "groups", "root": "x"}}, ConfigError, "root does not go with a folder"),
    ],
)
def test_data_that_is_described_wrongly_is_refused_before_anything_is_written(tmp_path, data, error, message):
    places = {"GROUPS": str(tmp_path / "groups.jsonl"), "FOLDER": str(draw_folder(tmp_path / "images", ["red"], 1))}
    for stage, value in data.items():
        if isinstance(value, dict) and "path" in value:
            value["path"] = places[value["path"]]
        data[stage] = places.get(value, value) if isinstance(value, str) else value
    with pytest.raises(error, match=message):
        fit(text_job(tmp_path, **data))
    assert not (tmp_path / "run").exists()


def test_hard_classes_are_sampled_in_a_job(tmp_path):
    train = draw_folder(tmp_path / "train", HUES)
    sampler = {"type": "HardClassSampler", "per_group": 2, "embed_per_group": 2}
    cfg = job(tmp_path, train=str(train), sampler=sampler)
    cfg["training"] |= {"epochs": 2, "batch_size": 4}
    assert fit(cfg).model_path.is_dir()
    with pytest.raises(ConfigError, match="sampler 'HardClassSampler' has no setting 'embed_per_grup'"):
        fit(cfg | {"data": cfg["data"] | {"sampler": {**sampler, "embed_per_grup": 1}}})
    with pytest.raises(UnknownNameError, match="did you mean 'HardClassSampler'"):
        fit(cfg | {"data": cfg["data"] | {"sampler": {"type": "HardClasSampler"}}})
