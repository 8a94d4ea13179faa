"""Folders of quaterion-models that are damaged or meant to do harm; the real package is met in tests/compat."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from simtrain import heads
from simtrain.encoders import ModuleEncoder, PrecomputedEncoder
from simtrain.errors import ConfigError, ServableError
from simtrain.models import SimilarityModel


def saved(path: Path, head: nn.Module | None = None) -> SimilarityModel:
    model = SimilarityModel({"b": PrecomputedEncoder(2), "a": PrecomputedEncoder(2)}, head or heads.GatedHead(4))
    model.save(path, format="quaterion")
    return model


def change(file: Path, **words: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **words}))


# -- the folder


def test_the_folder_is_laid_out_as_theirs(tmp_path: Path) -> None:
    saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    ours = {"module": "simtrain.models.quaterion_encoder", "class": "RegisteredEncoder"}
    assert config == {
        "encoders": [{"key": "a", **ours}, {"key": "b", **ours}],
        "head": {"module": "quaterion_models.heads.gated_head", "class": "GatedHead"},
    }
    files = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    parts = {f"encoders/{name}/{file}" for name in "ab" for file in ("simtrain.json", "encoder/encoder.json")}
    assert files == {"README.md", "config.json", "head/config.json", "head/weights.bin", *parts}


def test_it_is_written_into_new_or_empty_folders_only(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    with pytest.raises(ServableError, match=r"model is there already and not an empty folder"):
        saved(tmp_path / "model")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_model_of_ours_is_not_written_over_theirs(tmp_path: Path) -> None:
    model = saved(tmp_path)
    with pytest.raises(ServableError, match=r"config\.json belongs to something else and is not overwritten"):
        model.save(tmp_path)
    assert SimilarityModel.load(tmp_path).embedding_size == 4


def test_unknown_formats_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^unknown format 'quaterio'; did you mean 'quaterion'\? Accepted: "):
        SimilarityModel(PrecomputedEncoder(2), heads.EmptyHead(2)).save(tmp_path, format="quaterio")
    assert list(tmp_path.iterdir()) == []


def test_callers_own_modules_are_filled(tmp_path: Path) -> None:
    def own() -> ModuleEncoder:
        return ModuleEncoder(nn.Linear(2, 2), 2)

    saved(tmp_path)
    model = SimilarityModel(own(), heads.EmptyHead(2))
    part = tmp_path / "encoders" / "a"
    (part / "encoder" / "encoder.json").unlink()
    model.encoders["default"].save(part / "encoder")
    (part / "simtrain.json").write_text('{"type": "ModuleEncoder"}')
    loaded = SimilarityModel.load(tmp_path, encoders={"a": own()})
    vectors = torch.randn(3, 2)
    np.testing.assert_array_equal(loaded.encoders["a"](vectors).detach().numpy(), model.encode(vectors), strict=True)
    with pytest.raises(ServableError, match=r"no code is loaded from files: pass module=\.\.\."):
        SimilarityModel.load(tmp_path)


# -- what files ask for


@pytest.mark.parametrize("module", ["antigravity", "quaterion_models_evil.heads", "os", "simtrain.heads.gated_head"])
@pytest.mark.parametrize("name", ["GatedHead", "system", "__builtins__"])
def test_no_class_of_another_module_is_a_head(tmp_path: Path, module: str, name: str) -> None:
    saved(tmp_path)
    change(tmp_path / "config.json", head={"module": module, "class": name})
    with pytest.raises(ServableError, match=rf"holds the head '{module}:{name}', and no code is loaded from files"):
        SimilarityModel.load(tmp_path)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("module", ["antigravity", "quaterion_models.encoders.extras.fasttext_encoder", "torch.nn"])
def test_no_class_that_is_not_allowed_is_an_encoder(tmp_path: Path, module: str) -> None:
    saved(tmp_path)
    change(tmp_path / "config.json", encoders=[{"key": "a", "module": module, "class": "Linear"}])
    message = (
        rf"holds the encoder '{module}:Linear', and no code is loaded from files: import the class and pass "
        rf'load\(\.\.\., allow=\[Linear\]\), or encoders={{"NAME": Linear\(\.\.\.\)}}'
    )
    with pytest.raises(ServableError, match=message):
        SimilarityModel.load(tmp_path, allow=[PrecomputedEncoder])
    assert "antigravity" not in sys.modules


def test_classes_are_checked_before_any_weight_is_read(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "head" / "weights.bin").write_bytes(b"damaged")
    (tmp_path / "encoders" / "b" / "simtrain.json").write_text('{"type": "os:system"}')
    with pytest.raises(ServableError, match=r"of the class 'os:system', which is not registered"):
        SimilarityModel.load(tmp_path)


# -- damage


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("head/weights.bin", "truncate", r"head/weights\.bin is damaged"),
        ("head/weights.bin", "empty", r"head/weights\.bin is damaged"),
        ("head/weights.bin", "garbage", r"head/weights\.bin is damaged"),
        ("head/weights.bin", "remove", r"head/weights\.bin is missing"),
        ("head/config.json", "truncate", r"head/config\.json cannot be read as JSON"),
        ("head/config.json", "remove", r"head/config\.json is missing"),
        ("config.json", "truncate", r"config\.json cannot be read as JSON"),
        ("encoders/a/simtrain.json", "remove", r"a/simtrain\.json is missing"),
        ("encoders/a/encoder/encoder.json", "remove", r"a/encoder/encoder\.json is missing"),
    ],
)
@pytest.mark.parametrize("kind", ["GatedHead", "SequentialHead"])
def test_missing_and_damaged_files_are_named(tmp_path: Path, kind: str, file: str, damage: str, message: str) -> None:
    saved(tmp_path, None if kind == "GatedHead" else heads.SequentialHead(nn.Linear(4, 4), output_size=4))
    content = (tmp_path / file).read_bytes()
    if damage == "remove":
        (tmp_path / file).unlink()
    else:
        damaged = {"truncate": content[: len(content) // 2], "empty": b"", "garbage": b"\x00garbage" * 20}
        (tmp_path / file).write_bytes(damaged[damage])
    with pytest.raises(ServableError, match=message):
        SimilarityModel.load(tmp_path)


OURS = {"module": "simtrain.models.quaterion_encoder", "class": "RegisteredEncoder"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"encoders": []}, r"config\.json must name one or more encoders and a head"),
        ({"encoders": [{"key": "../../x", **OURS}]}, r"an encoder's name must be made of letters"),
        ({"encoders": [{"key": 3, **OURS}]}, r"an encoder's name must be made of letters"),
        ({"encoders": [{"key": "a", **OURS}, {"key": "a", **OURS}]}, r"has two encoders of the key 'a'"),
        ({"encoders": [{"key": "a", "module": "x"}]}, r"must give a key, a module and a class for each encoder"),
        ({"encoders": ["a"]}, r"must give a key, a module and a class for each encoder, got 'a'"),
        ({"head": None}, r"must name one or more encoders and a head"),
        ({"head": {"module": 1, "class": "GatedHead"}}, r"must name one or more encoders and a head"),
    ],
)
def test_wrong_configs_are_named(tmp_path: Path, words: dict[str, Any], message: str) -> None:
    saved(tmp_path)
    change(tmp_path / "config.json", **words)
    with pytest.raises(ServableError, match=message):
        SimilarityModel.load(tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"dropout": 2}, r"head/config\.json does not describe a GatedHead: dropout must be a number from 0"),
        ({"input_embedding_size": -1}, r"does not describe a GatedHead: input_embedding_size must be a positive"),
        ({"input_embedding_size": "4"}, r"does not describe a GatedHead: input_embedding_size must be a positive"),
        ({"gate": 1}, r"head/config\.json has the unknown setting 'gate'; accepted:"),
    ],
)
@pytest.mark.usefixtures("without_type_checks")
def test_wrong_settings_of_heads_are_named(tmp_path: Path, words: dict[str, Any], message: str) -> None:
    saved(tmp_path)
    change(tmp_path / "head" / "config.json", **words)
    with pytest.raises(ServableError, match=message):
        SimilarityModel.load(tmp_path)


GATED = {"module": "quaterion_models.heads.gated_head", "class": "GatedHead"}
SETTINGS = {"input_embedding_size": 4}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (None, r"must give the options under 'heads', got None"),
        ({"x": None}, r"the option 'x' is no head that can be rebuilt, got \{\}"),
        ({"x": {"class": GATED, "config": 3}}, r"the option 'x' is no head that can be rebuilt"),
        ({"x": {"class": {**GATED, "class": "SwitchHead"}, "config": {}}}, r"'x' is no head that can be rebuilt"),
        ({"x": {"class": {"module": "os", "class": "system"}, "config": {}}}, r"holds the head 'os:system', and no"),
        ({"forward": {"class": GATED, "config": SETTINGS}}, r"an option's name must be a text without dots"),
    ],
)
def test_wrong_options_of_switches_are_named(tmp_path: Path, options: Any, message: str) -> None:
    saved(tmp_path)
    head = {"module": "quaterion_models.heads.switch_head", "class": "SwitchHead"}
    change(tmp_path / "config.json", head=head)
    (tmp_path / "head" / "config.json").write_text(json.dumps({**SETTINGS, "heads": options}))
    with pytest.raises(ServableError, match=message):
        SimilarityModel.load(tmp_path)
