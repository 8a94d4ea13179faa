"""What a job from a config does with its cache."""

import json

import pytest
import torch
from typer.testing import CliRunner

from simtrain import fit, registry
from simtrain.cache import CacheType
from simtrain.cli import app
from simtrain.encoders import NgramEncoder
from simtrain.errors import ConfigError, UnknownNameError
from simtrain.runner import Runner


@pytest.fixture
def encoded():
    """Number of texts in each batch that was encoded. From outside: what an encoder refers to is its identity."""
    batches = []

    def count(module, _, embeddings):
        if isinstance(module, NgramEncoder):
            batches.append(len(embeddings))

    handle = torch.nn.modules.module.register_module_forward_hook(count)
    yield batches
    handle.remove()


@registry.augments.register_module()
def capitals(text, every=1):
    """A text whose words begin with capitals."""
    return " ".join(word.capitalize() if n % every == 0 else word for n, word in enumerate(text.split()))


def job(tmp_path, **settings):
    rows = [{"query": f"query {n % 10}", "document": f"document {n}"} for n in range(12)]
    for stage, first in (("train", 0), ("valid", 8), ("test", 6)):
        (tmp_path / f"{stage}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[first : first + 8]))
    return {
        "run_dir": str(tmp_path / "run"),
        "data": {"kind": "pairs", **{stage: str(tmp_path / f"{stage}.jsonl") for stage in ("train", "valid", "test")}},
        "encoders": {"type": "NgramEncoder", "embedding_size": 16, "trainable": False},
        "loss": {"type": "MultipleNegativesRankingLoss"},
        "training": {"epochs": 2, "batch_size": 4, "device": "cpu"},
        **settings,
    }


N_TEXTS = 10 + 12  # distinct queries and documents of all three files


@pytest.mark.parametrize("kind", ["cpu", "disk"])
def test_the_command_encodes_each_item_once(tmp_path, encoded, kind):
    cache = {"cache_type": kind, "save_dir": str(tmp_path / "cache") if kind == "disk" else None}
    path = tmp_path / "job.json"
    path.write_text(json.dumps(job(tmp_path, cache=cache)))
    path = path.rename(tmp_path / "job.yaml")  # JSON is YAML
    for expected in (N_TEXTS, 0 if kind == "disk" else N_TEXTS):
        encoded.clear()
        result = CliRunner().invoke(app, ["train", str(path)])
        assert result.exit_code == 0, result.output
        assert sum(encoded) == expected


def test_the_cache_is_filled_where_training_runs(tmp_path, encoded, monkeypatch):
    # Before training and after it, when lightning has taken the model back: else a GPU run encodes twice.
    placed, place = [], Runner.place_model
    monkeypatch.setattr(Runner, "place_model", lambda self, *args: (placed.append(sum(encoded)), place(self, *args)))
    encoded.clear()
    fit(job(tmp_path, cache={"cache_type": "cpu"}))
    assert placed == [0, N_TEXTS, N_TEXTS]  # by the job, by the training loop, by the job


@pytest.mark.parametrize(
    "augment", ["capitals", {"type": "capitals"}, {"type": "capitals", "every": 2}, {"default": "capitals"}]
)
def test_versions_by_a_function_that_the_config_names(tmp_path, encoded, augment):
    encoded.clear()
    result = fit(job(tmp_path, cache={"views": 1, "augment": augment}))
    n_trained = 8 + 8  # texts of the training file, each in one version
    assert sum(encoded) == N_TEXTS + n_trained
    assert result.model.configure_caches().cache_type is CacheType.AUTO
    assert torch.isfinite(torch.tensor(result.model.model.encode(["a"]))).all()


@pytest.mark.parametrize(
    ("cache", "error", "message"),
    [
        (
            {"augment": "capital"},
            UnknownNameError,
            "unknown augment function type 'capital'; did you mean 'capitals'",
        ),
        (
            {"augment": {"type": "mine.capitals"}},
            UnknownNameError,
            "Names are not paths: import mine before, where 'capitals' is registered, and give its bare name",
        ),
        (
            {"augment": {"type": "capitals", "evry": 2}},
            ConfigError,
            "augment function 'capitals' has no setting 'evry'; did you mean 'every'",
        ),
        ({"augment": {"txt": "capitals"}}, ConfigError, "names no encoder 'txt'"),
        ({"key_extractors": "len"}, UnknownNameError, "unknown key extractor type 'len'"),
    ],
)
def test_wrong_names_are_errors_before_anything_is_encoded(tmp_path, encoded, cache, error, message):
    encoded.clear()
    with pytest.raises(error, match=message):
        fit(job(tmp_path, cache=cache))
    assert not encoded
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("trainable", "cache", "told"),
    [(True, {}, True), (False, {}, False), (True, None, False), (True, {"cache_type": "none"}, False)],
)
def test_a_cache_that_can_hold_nothing_is_told(tmp_path, caplog, trainable, cache, told):
    words = job(tmp_path)
    words["encoders"]["trainable"] = trainable
    fit({**words, "cache": cache})
    assert ("the section 'cache' does nothing here: every encoder is trained" in caplog.text) == told
