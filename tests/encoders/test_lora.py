from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from simtrain.encoders import SentenceTransformerEncoder, TransformerEncoder
from simtrain.encoders.lora import LoraSettings, add_adapters, check_lora, merged_copy
from simtrain.errors import ConfigError, MissingExtraError

pytest.importorskip("peft")
TEXTS = ["x", "a red shoe", "The sky is blue. " * 5]
LORA = {"r": 4, "alpha": 8}


def sentence_transformer(minilm: Any, tokenizer: Any, bert: Any, **words: Any) -> SentenceTransformerEncoder:
    return SentenceTransformerEncoder(copy.deepcopy(minilm), **words)


def transformer(minilm: Any, tokenizer: Any, bert: Any, **words: Any) -> TransformerEncoder:
    return TransformerEncoder(copy.deepcopy(bert), tokenizer=tokenizer, **words)


@pytest.fixture(params=[sentence_transformer, transformer], ids=["SentenceTransformer", "Transformer"])
def build(request: Any, minilm: Any, tokenizer: Any, tiny_bert: Any) -> Any:
    return lambda **words: request.param(minilm, tokenizer, tiny_bert, **words)


def embedded(encoder: Any) -> torch.Tensor:
    with torch.no_grad():
        return encoder(encoder.get_collate_fn()(TEXTS))


def trained(encoder: nn.Module) -> list[str]:
    return [name for name, weight in encoder.named_parameters() if weight.requires_grad]


def shake(encoder: nn.Module) -> None:
    for weight in encoder.parameters():
        if weight.requires_grad:
            nn.init.normal_(weight, std=0.1)


@pytest.mark.parametrize("trainable", [False, True])
def test_adapters_alone_are_trained(build: Any, trainable: bool) -> None:
    plain = embedded(build())
    encoder = build(lora={**LORA, "dropout": 0.1}, trainable=trainable)
    assert encoder.trainable
    assert trained(encoder)
    assert all(".lora_" in name for name in trained(encoder))
    assert torch.equal(embedded(encoder.eval()), plain)
    encoder.train()
    assert any(part.training for part in encoder.modules() if isinstance(part, nn.Dropout))
    shake(encoder)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    optimizer = torch.optim.SGD([weight for weight in encoder.parameters() if weight.requires_grad], lr=1.0)
    encoder(encoder.get_collate_fn()(TEXTS))[:, 0].sum().backward()
    assert all(weight.grad is not None for weight in encoder.parameters() if weight.requires_grad)
    optimizer.step()
    changed = {name for name, value in encoder.state_dict().items() if not torch.equal(before[name], value)}
    assert changed
    assert changed <= set(trained(encoder))


@pytest.mark.parametrize("targets", [None, "all-linear"])
def test_a_saved_encoder_is_a_plain_one(build: Any, tmp_path: Path, targets: Any) -> None:
    plain = build()
    names, before = [name for name, _ in plain.named_parameters()], embedded(plain)
    encoder = build(lora={**LORA, "target_modules": targets})
    shake(encoder)
    encoder.eval()
    live = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder.save(tmp_path)
    assert all(torch.equal(live[name], value) for name, value in encoder.state_dict().items())
    loaded = type(encoder).load(tmp_path)
    torch.testing.assert_close(embedded(loaded), embedded(encoder), atol=1e-5, rtol=0)
    assert not torch.allclose(embedded(loaded), before, atol=1e-3)
    assert [name for name, _ in loaded.named_parameters()] == names
    assert not loaded.trainable
    assert not list(tmp_path.glob("adapter*"))


@pytest.mark.parametrize("targets", [None, "all-linear"])
def test_saved_weights_are_read_below_new_adapters(build: Any, tmp_path: Path, targets: Any) -> None:
    encoder, given = build(lora=LORA), build(lora={**LORA, "target_modules": targets})
    shake(encoder)
    shake(given)
    encoder.eval().save(tmp_path)
    given.load_weights(tmp_path)
    assert given.trainable
    torch.testing.assert_close(embedded(given.eval()), embedded(encoder), atol=1e-5, rtol=0)
    given.train()(given.get_collate_fn()(TEXTS))[:, 0].sum().backward()
    assert any(weight.grad is not None and weight.grad.any() for weight in given.parameters())


def test_adapters_of_embeddings_begin_anew_too(tokenizer: Any, tiny_bert: Any, tmp_path: Path) -> None:
    words = {"tokenizer": tokenizer, "lora": {**LORA, "target_modules": ["word_embeddings"]}}
    plain = TransformerEncoder(copy.deepcopy(tiny_bert), tokenizer=tokenizer)
    given = TransformerEncoder(tiny_bert, **words)
    shake(given)
    plain.save(tmp_path)
    given.load_weights(tmp_path)
    assert torch.equal(embedded(given.eval()), embedded(plain))
    assert any(weight.any() for name, weight in given.named_parameters() if ".lora_" in name)


def test_saving_in_train_mode_goes_on_with_training(build: Any, tmp_path: Path) -> None:
    encoder = build(lora=LORA).train()
    names = trained(encoder)
    encoder.save(tmp_path)
    assert trained(encoder) == names
    assert encoder.training


def test_the_unused_pooler_gets_no_adapters(build: Any) -> None:
    names = trained(build(lora={**LORA, "target_modules": "all-linear"}))
    assert any("intermediate" in name for name in names)
    assert not any("pooler" in name for name in names)


def test_settings_reach_the_adapters(tokenizer: Any, tiny_bert: Any) -> None:
    lora = {"r": 3, "alpha": 12, "dropout": 0.25, "target_modules": ["query"]}
    encoder = TransformerEncoder(tiny_bert, tokenizer=tokenizer, lora=lora)
    layer = encoder.model.encoder.layer[0].attention.self.query
    assert layer.lora_A["default"].weight.shape == (3, 16)
    assert layer.scaling["default"] == 4
    assert layer.lora_dropout["default"].p == 0.25
    assert len(trained(encoder)) == 2 * 3


def test_merging_adds_the_product_to_the_weight() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    weight = model[0].weight.detach().clone()
    add_adapters(model, LoraSettings(r=2, alpha=6, target_modules=["0"]))
    shake(model)
    merged = merged_copy(model)
    expected = weight + 3 * model[0].lora_B["default"].weight @ model[0].lora_A["default"].weight
    torch.testing.assert_close(merged[0].weight, expected)
    assert type(merged[0]) is nn.Linear
    assert torch.equal(model[0].base_layer.weight, weight)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"rank": 8}, "lora has no setting 'rank'; accepted: 'alpha', 'dropout', 'r', 'target_modules'"),
        ({"r": 0}, "lora's r must be a positive integer, got 0"),
        ({"alpha": 0}, "lora's alpha must be a number above 0, got 0"),
        ({"dropout": 1.0}, "lora's dropout must be from 0 to below 1, got 1.0"),
        ({"target_modules": "query"}, "lora's target_modules must be 'all-linear', a list of ends .* got 'query'"),
        ({"target_modules": []}, "lora's target_modules must be 'all-linear'"),
        (8, "lora must be a mapping such as {'r': 8, 'alpha': 16}, got 8"),
    ],
)
def test_wrong_settings_are_refused(lora: Any, message: str, without_type_checks: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        check_lora(lora, False)


def test_layers_that_are_not_there_are_named(tokenizer: Any, tiny_bert: Any) -> None:
    with pytest.raises(ConfigError, match=r"no layer's name ends in 'q_proj'; give .* such as 'dense', 'key', 'query'"):
        TransformerEncoder(tiny_bert, tokenizer=tokenizer, lora={"target_modules": ["query", "q_proj"]})
    with pytest.raises(ConfigError, match=r"lora: .*; give target_modules='all-linear', or .* of Sequential's linear"):
        add_adapters(nn.Sequential(nn.Linear(2, 2)), LoraSettings())


def test_last_layers_and_adapters_do_not_go_together(tokenizer: Any, tiny_bert: Any) -> None:
    with pytest.raises(ConfigError, match="lora trains adapters alone, so trainable='last:1' has nothing to train"):
        TransformerEncoder(tiny_bert, tokenizer=tokenizer, lora=LORA, trainable="last:1")


def test_a_missing_peft_is_an_error_at_construction(
    tokenizer: Any, tiny_bert: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"the package 'peft', .* run: pip install 'simtrain\[lora\]'"):
        TransformerEncoder(tiny_bert, tokenizer=tokenizer, lora=LORA)


def test_importing_encoders_loads_no_optional_package() -> None:
    heavy = {"peft", "transformers", "PIL", "sentence_transformers"}
    code = f"import sys, simtrain.encoders; print({heavy} & {{*sys.modules}})"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "set()"
