"""Switches and heads of heads from a config, by ``from_cfg`` and as a job."""

import csv

import pytest

from simtrain import SimilarityModel, TrainableModel, fit
from simtrain.encoders import NgramEncoder, PrecomputedEncoder
from simtrain.errors import ConfigError
from simtrain.heads import GatedHead

TEXT = {"type": "NgramEncoder", "embedding_size": 8, "n_buckets": 200}
SWITCH = {
    "type": "SwitchEncoder",
    "options": {"text": TEXT, "image": {"type": "PrecomputedEncoder", "embedding_size": 8}},
}
LAYERS = {
    "type": "SequentialHead",
    "output_size": 8,
    "layers": [{"type": "Linear", "out_features": 8}, {"type": "ReLU"}],
}
HEADS = [
    {"type": "SwitchHead", "options": {"text": {"type": "GatedHead"}, "image": LAYERS}},
    {"type": "AsymmetricHead", "query": {"type": "GatedHead"}, "document": LAYERS},
    {"type": "SequentialHead", "output_size": 8, "layers": [{"type": "GatedHead"}, {"type": "LayerNorm"}]},
]


@pytest.mark.parametrize("head", HEADS)
def test_nested_parts_are_built_from_a_config(head):
    model = TrainableModel.from_cfg({"encoders": SWITCH, "head": head, "loss": {"type": "SupConLoss"}}).model
    options = model.encoders["default"].options
    assert (type(options["text"]), type(options["image"])) == (NgramEncoder, PrecomputedEncoder)
    assert model.head.get_config_dict()["input_embedding_size"] == 8
    assert sum(isinstance(part, GatedHead) for part in model.head.modules()) == 1


def test_a_mistake_inside_a_nested_config_is_named():
    wrong = {**SWITCH, "options": {**SWITCH["options"], "text": {**TEXT, "buckets": 3}}}
    with pytest.raises(ConfigError, match="option 'text': encoder 'NgramEncoder' has no setting 'buckets'"):
        TrainableModel.from_cfg({"encoders": wrong, "head": HEADS[0], "loss": {"type": "SupConLoss"}})


@pytest.mark.parametrize("head", HEADS)
def test_a_job_with_nested_configs_trains_and_saves(head, tmp_path):
    with open(tmp_path / "train.csv", "w", newline="") as file:
        csv.writer(file).writerows([["query", "document"], *([f"word {i}", f"the word {i}"] for i in range(12))])
    result = fit(
        {
            "run_dir": str(tmp_path / "run"),
            "data": {"train": str(tmp_path / "train.csv"), "test": str(tmp_path / "train.csv")},
            "encoders": SWITCH,
            "head": head,
            "loss": {"type": "MultipleNegativesRankingLoss"},
            "training": {"epochs": 1, "batch_size": 6},
        }
    )
    assert SimilarityModel.load(result.model_path).encode_query("a word").shape == (8,)
