import json

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from simtrain import SimilarityModel, fit, load_cfg
from simtrain.data import load_label_names
from simtrain.errors import CheckpointError, ConfigError, DataError
from simtrain.runner.checkpoints.resume_source import resume_path


@pytest.fixture
def job(tmp_path):
    """A job on vectors: the document is the query under a fixed rotation, which the head can learn."""
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=generator))[0]
    for name, n in (("train", 200), ("test", 60)):
        queries = torch.randn(n, 8, generator=generator)
        documents = (queries @ turn + 0.1 * torch.randn(n, 8, generator=generator)).tolist()
        lines = [
            {"item": vector, "group": group}
            for group in range(n)
            for vector in (queries[group].tolist(), documents[group])
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {
        "run_dir": str(tmp_path / "run"),
        "data": {"kind": "groups", "train": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl")},
        "encoders": {"type": "PrecomputedEncoder", "embedding_size": 8},
        "head": {"type": "StackedProjectionHead", "output_sizes": [64, 16]},
        "loss": {"type": "SupConLoss", "temperature": 0.2},
        "optimizer": {"type": "Adam", "lr": 0.01},
        "scheduler": {"type": "cosine"},
        "cache": {"cache_type": "cpu"},
        "training": {"epochs": 20, "batch_size": 64},
    }


def test_a_job_trains_measures_and_saves(job, tmp_path):
    result = fit(job)
    assert result.after.metrics["mrr"] > result.before.metrics["mrr"]
    assert set(result.seconds) == {"cache", "evaluation before", "training", "evaluation after"}
    loaded = SimilarityModel.load(result.model_path)
    assert loaded.encode([[0.0] * 8]).shape == (1, 16)
    figures = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert figures["after"]["metrics"]["mrr"] == pytest.approx(result.after.metrics["mrr"])
    assert load_cfg(tmp_path / "run" / "config.yaml").training.epochs == 20


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(job):
    states = [fit(job, [f"seed={seed}", "training.epochs=2"]).model.model.state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("los.type=x", ConfigError, "unknown key 'los'; did you mean 'loss'"),
        ("loss.type=TripletLos", ConfigError, "unknown loss type 'TripletLos'; did you mean 'TripletLoss'"),
        ("data.kind=pairs", DataError, "there is no column 'query'"),
        ("data.train=missing.jsonl", DataError, "there is no data file 'missing.jsonl'"),
        ("data.train=null", ConfigError, "no value for 'data.train'"),
        ("cache.cache_typ=cpu", ConfigError, "section 'cache' has no setting 'cache_typ'; did you mean 'cache_type'"),
        ("head.output_sizes=[0]", ConfigError, "output_sizes"),
    ],
)
def test_bad_input_is_found_before_anything_is_written(job, tmp_path, override, error, message):
    with pytest.raises(error, match=message):
        fit(job, [override])
    assert not (tmp_path / "run").exists()


def test_a_loss_of_another_kind_than_the_data_is_refused(job, tmp_path):
    job["loss"] = {"type": "MultipleNegativesRankingLoss"}
    with pytest.raises(
        ConfigError, match=r"MultipleNegativesRankingLoss takes pairs or triplets, but data\.kind is 'groups'"
    ):
        fit(job)
    assert not (tmp_path / "run").exists()


def group_job(tmp_path, **data):
    rows = [{"item": f"{label} number {i}", "group": label} for label in ("shoes", "hats", "bags") for i in range(4)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "run_dir": str(tmp_path / "run"),
        "data": {"kind": "groups", "train": str(tmp_path / "train.jsonl"), **data},
        "encoders": {"type": "NgramEncoder", "embedding_size": 16},
        "loss": {"type": "TripletLoss", "margin": 0.2},
        "training": {"epochs": 1, "batch_size": 6, "device": "cpu"},
    }


def test_groups_are_sampled_as_asked_and_their_labels_saved(tmp_path):
    result = fit(group_job(tmp_path, sampler={"type": "PKSampler", "per_group": 2}))
    assert json.loads((result.run_dir / "labels.json").read_text())
    assert load_label_names(result.run_dir / "labels.json") == {0: "shoes", 1: "hats", 2: "bags"}


def test_triplets_train_from_a_file(tmp_path):
    rows = [{"anchor": f"q {i}", "positive": f"a {i}", "negatives": [f"n {i}", "other"]} for i in range(8)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cfg = group_job(tmp_path, kind="triplets") | {"loss": {"type": "MultipleNegativesRankingLoss"}}
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert fit(cfg).model_path.is_dir()


class Leave(Callback):
    """Breaks a job off in a step."""

    def on_before_backward(self, trainer, module, loss):
        if trainer.global_step == 9:
            raise KeyboardInterrupt


def test_a_job_that_was_stopped_goes_on_with_one_more_word(job, tmp_path):
    words = ["training.epochs=3", "head.dropout=0.2", "checkpoint.step_interval=2"]
    whole = fit(job, words)
    left = {**job, "run_dir": str(tmp_path / "left")}
    with pytest.raises(KeyboardInterrupt):
        fit(left, words, callbacks=[Leave()])
    assert not (tmp_path / "left" / "model").exists()
    resumed = fit(left, [*words, "training.resume_from=auto"])
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name])
    assert resumed.after.metrics == whole.after.metrics


def test_a_job_that_begins_anew_puts_the_checkpoints_before_it_aside(job, tmp_path):
    weights = []
    for seed in (1, 2, 3):
        fit(job, ["training.epochs=1", f"seed={seed}", "checkpoint.topk=0"])
        weights.append((tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes())
    names, folders = (
        {"epoch=1-step=7.ckpt", "last.ckpt"},
        ("checkpoints-previous", "checkpoints-previous-2", "checkpoints"),
    )
    for folder, expected in zip(folders, weights, strict=True):
        assert {file.name for file in (tmp_path / "run" / folder).iterdir()} == names
        assert (tmp_path / "run" / folder / "last.ckpt").read_bytes() == expected
    assert resume_path("auto", tmp_path / "run").parent.name == "checkpoints"


def test_a_job_whose_folder_holds_no_run_cannot_be_resumed(job):
    with pytest.raises(CheckpointError, match=r"there is no run to resume in .*check run_dir, or start"):
        fit(job, ["training.resume_from=auto"])
