from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from simtrain import registry
from simtrain.encoders import PrecomputedEncoder
from simtrain.errors import ConfigError, DataError, ServableError


def test_precomputed_encoder_passes_vectors_on_and_reloads(tmp_path: Path) -> None:
    PrecomputedEncoder(2).save(tmp_path)
    encoder = PrecomputedEncoder.load(tmp_path)
    assert encoder(encoder.get_collate_fn()([[1, 2], [3, 4]])).tolist() == [[1, 2], [3, 4]]
    assert (encoder.embedding_size, encoder.trainable, encoder.get_config_dict()) == (2, False, {"embedding_size": 2})
    assert registry.encoders.get("PrecomputedEncoder") is PrecomputedEncoder


def test_precomputed_encoder_names_the_item_of_wrong_length() -> None:
    with pytest.raises(DataError, match=r"^item 1 must be a vector of 2 numbers, got shape \(3,\)$"):
        PrecomputedEncoder(2).get_collate_fn()([[1, 2], [1, 2, 3]])


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "3", None])
def test_precomputed_encoder_refuses_wrong_sizes(size: Any) -> None:
    with pytest.raises(ConfigError, match="embedding_size must be a positive integer, got"):
        # The type checker of the test run would speak first.
        getattr(PrecomputedEncoder.__init__, "__wrapped__", PrecomputedEncoder.__init__)(PrecomputedEncoder(1), size)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "must hold a JSON object, got list"),
        ('{"embedding_sise": 2}', "unknown setting 'embedding_sise'; did you mean 'embedding_size'"),
        ("{}", "does not describe a PrecomputedEncoder"),
        ('{"embedding_size": 0}', "must be a positive integer, got 0"),
    ],
)
def test_precomputed_encoder_names_the_damaged_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "encoder.json").write_text(text)
    with pytest.raises(ServableError, match=message) as error:
        PrecomputedEncoder.load(tmp_path)
    assert str(tmp_path / "encoder.json") in str(error.value)


def test_precomputed_encoder_names_the_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ServableError, match=r"encoder\.json is missing"):
        PrecomputedEncoder.load(tmp_path / "nowhere")
