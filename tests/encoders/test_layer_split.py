from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5EncoderModel,
)

from simtrain.encoders import SentenceTransformerEncoder, TransformerEncoder
from simtrain.encoders.layer_split import PassingLayer, SplitEncoder
from simtrain.errors import ConfigError

TEXTS = ["one", "two words", "a text of some more words, as they come", "red"] * 3
LONG = ["word " * n for n in (3, 40)] * 40
SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}


def transformer(name: str, n_tokens: int) -> Any:
    torch.manual_seed(0)
    words = {"vocab_size": n_tokens, "max_position_embeddings": 128, **SIZES}
    if name == "bert":
        return BertModel(BertConfig(**words))
    if name == "roberta":
        return RobertaModel(RobertaConfig(**words, pad_token_id=1))
    if name == "mpnet":
        return MPNetModel(MPNetConfig(**words, pad_token_id=1))
    if name == "modernbert":
        return ModernBertModel(ModernBertConfig(**words, pad_token_id=0, local_attention=4))
    if name == "llama":
        return LlamaModel(LlamaConfig(**words))
    if name == "distilbert":
        return DistilBertModel(DistilBertConfig(vocab_size=n_tokens, dim=16, n_layers=3, n_heads=2, hidden_dim=32))
    return GPT2Model(GPT2Config(vocab_size=n_tokens, n_positions=128, n_embd=16, n_layer=3, n_head=2))


ARCHITECTURES = ["bert", "roberta", "mpnet", "modernbert", "llama", "distilbert", "gpt2"]


@pytest.mark.parametrize("count", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3))])
@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_both_parts_together_are_the_forward(name: str, pooling: str, count: int, tokenizer: Any) -> None:
    model = transformer(name, len(tokenizer))
    encoder = TransformerEncoder(model, pooling, trainable=f"last:{count}", tokenizer=tokenizer, normalize=True).eval()
    assert isinstance(encoder, SplitEncoder)
    encoder.check_split()
    batch = encoder.get_collate_fn()(TEXTS)
    states, mask = encoder.frozen_part(batch)
    assert states.shape == (*batch["input_ids"].shape, encoder.state_size)
    assert torch.equal(encoder.trainable_part(states, mask), encoder(batch))
    # The forward runs these in parts of like length, the frozen part as one.
    batch = encoder.get_collate_fn()(LONG)
    joined = encoder.trainable_part(*encoder.frozen_part(batch))
    torch.testing.assert_close(joined, encoder(batch), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2"])
def test_the_side_of_the_padding_does_not_matter(name: str, tokenizer: Any) -> None:
    model = transformer(name, len(tokenizer))
    encoder = TransformerEncoder(model, "last", trainable="last:2", tokenizer=tokenizer).eval()
    states, mask = encoder.frozen_part(encoder.get_collate_fn()(TEXTS))
    expected = encoder.trainable_part(states, mask)
    shifted, left = torch.zeros_like(states), mask.flip(1)
    shifted[left.bool()] = states[mask.bool()]
    torch.testing.assert_close(encoder.trainable_part(shifted, left), expected, atol=1e-5, rtol=1e-4)
    # Nor does what stands in the padding.
    noisy = torch.where(mask.bool().unsqueeze(2), states, torch.randn_like(states))
    torch.testing.assert_close(encoder.trainable_part(noisy, mask), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_gradients_are_those_of_the_forward(mode: str, tokenizer: Any) -> None:
    model = transformer("bert", len(tokenizer))
    encoder = TransformerEncoder(model, trainable="last:1", tokenizer=tokenizer).train(mode == "train")
    batch = encoder.get_collate_fn()(TEXTS)

    def gradients(embed: Any) -> list[torch.Tensor]:
        torch.manual_seed(1)
        encoder.zero_grad()
        embed().square().sum().backward()
        return [weight.grad.clone() for weight in encoder.parameters() if weight.grad is not None]

    whole = gradients(lambda: encoder(batch))
    parts = gradients(lambda: encoder.trainable_part(*encoder.frozen_part(batch)))
    assert len(whole) == len(parts) == 16
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))


def test_dropout_of_the_trained_part_is_on_and_of_the_frozen_part_off(tokenizer: Any) -> None:
    encoder = TransformerEncoder(transformer("bert", len(tokenizer)), trainable="last:1", tokenizer=tokenizer).train()
    batch = encoder.get_collate_fn()(TEXTS)
    states, mask = encoder.frozen_part(batch)
    assert torch.equal(states, encoder.frozen_part(batch)[0])
    assert not torch.equal(encoder.trainable_part(states, mask), encoder.trainable_part(states, mask))


@pytest.mark.parametrize("count", [1, 3, 6])
def test_sentence_transformers_split_too(minilm: Any, count: int) -> None:
    encoder = SentenceTransformerEncoder(copy.deepcopy(minilm), trainable=f"last:{count}").eval()
    encoder.check_split()
    assert encoder.state_size == 384
    batch = encoder.get_collate_fn()(TEXTS)
    assert torch.equal(encoder.trainable_part(*encoder.frozen_part(batch)), encoder(batch))
    batch = encoder.get_collate_fn()(LONG)
    joined = encoder.trainable_part(*encoder.frozen_part(batch))
    torch.testing.assert_close(joined, encoder(batch), atol=1e-5, rtol=1e-4)


def test_a_sentence_transformer_padded_on_the_left_splits_too(tiny_decoder: Any, tokenizer: Any, tmp_path: Any) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    left = copy.deepcopy(tokenizer)
    left.padding_side = "left"
    tiny_decoder.save_pretrained(tmp_path)
    left.save_pretrained(tmp_path)
    model = SentenceTransformer(modules=[Transformer(str(tmp_path)), Pooling(16, "lasttoken")], device="cpu")
    encoder = SentenceTransformerEncoder(model, trainable="last:1").eval()
    batch = encoder.get_collate_fn()(TEXTS)
    assert batch["attention_mask"][0, 0] == 0
    encoder.check_split()
    assert torch.equal(encoder.trainable_part(*encoder.frozen_part(batch)), encoder(batch))


def test_a_split_encoder_stays_whole(tiny_bert: Any, tokenizer: Any) -> None:
    encoder = TransformerEncoder(tiny_bert, trainable="last:1", tokenizer=tokenizer).train()
    before = {name: type(module) for name, module in encoder.named_modules()}
    modes = {name: module.training for name, module in encoder.named_modules()}
    encoder.check_split()
    encoder.trainable_part(*encoder.frozen_part(encoder.get_collate_fn()(TEXTS)))
    assert {name: type(module) for name, module in encoder.named_modules()} == before
    assert {name: module.training for name, module in encoder.named_modules()} == modes
    assert not any(isinstance(module, PassingLayer) for module in encoder.modules())


def test_half_precision_states_are_near(tiny_bert: Any, tokenizer: Any) -> None:
    encoder = TransformerEncoder(tiny_bert, trainable="last:1", tokenizer=tokenizer).eval()
    batch = encoder.get_collate_fn()(TEXTS)
    states, mask = encoder.frozen_part(batch)
    torch.testing.assert_close(encoder.trainable_part(states.half(), mask), encoder(batch), atol=1e-2, rtol=1e-2)


def test_frozen_modules_are_those_below(tiny_bert: Any, tokenizer: Any) -> None:
    encoder = TransformerEncoder(tiny_bert, trainable="last:1", tokenizer=tokenizer)
    names = {name for name, _ in encoder.frozen_modules().named_parameters()}
    frozen = {name for name, weight in encoder.model.named_parameters() if not weight.requires_grad}
    assert names == {name for name in frozen if not name.startswith("pooler")}


@pytest.mark.parametrize(
    ("trainable", "message"),
    [(False, "cache its embeddings, without boundary"), (True, "nothing of it can be cached")],
)
def test_all_or_nothing_has_no_boundary(tiny_bert: Any, tokenizer: Any, trainable: bool, message: str) -> None:
    with pytest.raises(ConfigError, match=f"trainable={trainable}: {message}"):
        TransformerEncoder(tiny_bert, trainable=trainable, tokenizer=tokenizer).check_split()


def test_a_trained_weight_below_the_boundary_is_named(tiny_bert: Any, tokenizer: Any) -> None:
    encoder = TransformerEncoder(tiny_bert, trainable="last:1", tokenizer=tokenizer)
    encoder.model.embeddings.word_embeddings.weight.requires_grad_(True)
    with pytest.raises(ConfigError, match=r"'model.embeddings.word_embeddings.weight' .* lies below the boundary"):
        encoder.check_split()


def test_adapters_have_no_boundary(tiny_bert: Any, tokenizer: Any) -> None:
    pytest.importorskip("peft")
    encoder = TransformerEncoder(tiny_bert, lora={"r": 2}, trainable=True, tokenizer=tokenizer)
    with pytest.raises(ConfigError, match="has LoRA adapters"):
        encoder.check_split()


def test_layers_that_hand_on_more_than_states_are_found(tokenizer: Any) -> None:
    # T5's first layer makes the position bias that all others take.
    torch.manual_seed(0)
    config = T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=3, num_heads=2)
    encoder = TransformerEncoder(T5EncoderModel(config), trainable="last:1", tokenizer=tokenizer)
    with pytest.raises(ConfigError, match="cannot be cut between its layers"):
        encoder.check_split()
