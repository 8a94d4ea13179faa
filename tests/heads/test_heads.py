"""What holds for every head; a head that is registered is tested without being named here."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import simtrain.heads.stacked_projection_head
from simtrain import registry
from simtrain.errors import ConfigError, DataError, ServableError
from simtrain.heads import EmptyHead, EncoderHead, SkipConnectionHead, StackedProjectionHead
from tests.heads.built_heads import EXTRA_WORDS, HEADS, built, meta_of

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def test_all_public_heads_are_registered() -> None:
    assert len(HEADS) >= 10
    assert set(HEADS) <= set(registry.heads.names())


@pytest.mark.parametrize("name", HEADS)
@given(size=st.integers(1, 9), count=st.integers(0, 5), dtype=st.sampled_from(DTYPES))
@settings(max_examples=25, deadline=None)
def test_output_has_the_stated_size_and_dtype(name: str, size: int, count: int, dtype: torch.dtype) -> None:
    head = built(name, size).to(dtype).eval()
    output = head(torch.ones(count, size, dtype=dtype), meta=meta_of(count))
    assert output.shape == (count, head.output_size)
    assert output.dtype == dtype
    assert bool(output.isfinite().all())


@pytest.mark.parametrize("name", HEADS)
@given(size=st.integers(1, 9), count=st.integers(0, 4))
@settings(max_examples=10, deadline=None)
def test_items_do_not_depend_on_each_other(name: str, size: int, count: int) -> None:
    head, vectors, meta = built(name, size).eval(), torch.randn(count, size), meta_of(count)
    together = head(vectors, meta=meta)
    for i in range(count):
        alone = head(vectors[i : i + 1], meta={key: codes[i : i + 1] for key, codes in meta.items()})
        torch.testing.assert_close(alone[0], together[i], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", HEADS)
@given(size=st.integers(1, 9), dropout=st.sampled_from([0.0, 0.25]))
@settings(max_examples=5, deadline=None)
def test_a_config_goes_through_json_and_back(name: str, size: int, dropout: float) -> None:
    head = built(name, size, dropout=dropout)
    config = json.loads(json.dumps(head.get_config_dict(), allow_nan=False))
    assert config == head.get_config_dict()
    for again in (type(head)(**config), registry.heads.build({"type": name, **config})):
        assert again.get_config_dict() == config
        assert repr(again) == repr(head)
        assert {key: weight.shape for key, weight in again.state_dict().items()} == {
            key: weight.shape for key, weight in head.state_dict().items()
        }


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("count", [2, 7])
def test_gradients_reach_every_parameter_and_the_vectors(name: str, count: int) -> None:
    head, vectors = built(name, 5), torch.randn(count, 5, requires_grad=True)
    # A sum of softmaxes is constant: weigh the dimensions. With 2 items one of three options is not chosen.
    output = head(vectors, meta=meta_of(count))
    (output * torch.randn_like(output)).sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    assert vectors.grad is not None
    assert bool((vectors.grad != 0).any(dim=1).all())
    if count == 7:
        assert all(bool((parameter.grad != 0).any()) for parameter in head.parameters())


@pytest.mark.parametrize("name", HEADS)
def test_the_output_under_autocast_has_a_dtype_that_training_knows(name: str) -> None:
    head = built(name, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = head(torch.randn(6, 6, requires_grad=True), meta=meta_of(6))
    assert output.dtype in (torch.bfloat16, torch.float32)
    output.float().square().sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in head.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("name", HEADS)
def test_a_copy_is_a_head_of_its_own(name: str) -> None:
    head = built(name, 5).eval()
    copied = copy.deepcopy(head)
    before = copied(torch.ones(3, 5), meta=meta_of(3))
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(1.0)
    assert torch.equal(copied(torch.ones(3, 5), meta=meta_of(3)), before)


@pytest.mark.parametrize("name", HEADS)
def test_saved_head_gives_the_same_vectors(tmp_path: Path, name: str) -> None:
    head = built(name, 5, dropout=0.25).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_()
    head.save(tmp_path)
    loaded = type(head).load(tmp_path).eval()
    vectors = torch.randn(4, 5)
    assert torch.equal(loaded(vectors, meta=meta_of(4)), head(vectors, meta=meta_of(4)))
    assert loaded.get_config_dict() == head.get_config_dict()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "weights.safetensors"]


@pytest.mark.parametrize("name", HEADS)
def test_dropout_acts_on_the_input_in_training_only(name: str) -> None:
    head, vectors, meta = built(name, 400, dropout=0.5), torch.ones(4, 400), meta_of(4)
    assert not torch.equal(head.train()(vectors, meta=meta), head(vectors, meta=meta))
    assert torch.equal(head.eval()(vectors, meta=meta), head(vectors, meta=meta))
    assert torch.equal(head(vectors, meta=meta), head.transform_items(vectors, meta))


@pytest.mark.parametrize("name", HEADS)
def test_dropout_acts_once(name: str) -> None:
    head = built(name, 3, dropout=0.5)
    assert sum(isinstance(part, torch.nn.Dropout) for part in head.modules()) == 1


@pytest.mark.parametrize("name", HEADS)
def test_wrong_width_names_both_sizes(name: str) -> None:
    with pytest.raises(DataError, match=rf"^{name} takes vectors of 5 dimensions, got 4; build the head with the sum"):
        built(name, 5)(torch.zeros(2, 4))


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"input_embedding_size": 0}, "input_embedding_size must be a positive integer, got 0"),
        ({"dropout": 1.0}, "dropout must be a number from 0 to below 1, got 1.0"),
        ({"dropout": -0.1}, "dropout must be a number from 0 to below 1, got -0.1"),
        ({"dropout": float("nan")}, "dropout must be a number from 0 to below 1, got nan"),
        ({"dropot": 0}, "has no setting 'dropot'; did you mean 'dropout'"),
    ],
)
def test_arguments_out_of_range_are_errors(name: str, words: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        registry.heads.build({"type": name, "input_embedding_size": 5, **EXTRA_WORDS.get(name, {}), **words})


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, r"config\.json is missing"),
        ("config.json", b"{", r"config\.json cannot be read as JSON"),
        (
            "config.json",
            b'{"input_embedding_size": 5, "droput": 0}',
            "unknown setting 'droput'; did you mean 'dropout'",
        ),
        ("config.json", b'{"input_embedding_size": 4}', r"weights\.safetensors does not fit SkipConnectionHead"),
        ("config.json", b'{"input_embedding_size": "5"}', r"config\.json does not describe a SkipConnectionHead"),
        ("weights.safetensors", None, r"weights\.safetensors is missing"),
        ("weights.safetensors", b"\x80\x04", r"weights\.safetensors is damaged"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, file: str, content: bytes | None, message: str) -> None:
    SkipConnectionHead(5).save(tmp_path)
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_bytes(content)
    with pytest.raises(ServableError, match=message):
        SkipConnectionHead.load(tmp_path)


def test_truncated_weights_are_named(tmp_path: Path) -> None:
    SkipConnectionHead(5).save(tmp_path)
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ServableError, match="is damaged"):
        SkipConnectionHead.load(tmp_path)


def test_base_class_says_what_a_head_must_have() -> None:
    with pytest.raises(NotImplementedError, match="EncoderHead must state `output_size`"):
        _ = EncoderHead(2).output_size
    with pytest.raises(NotImplementedError, match="EncoderHead must implement `transform`"):
        EncoderHead(2)(torch.zeros(1, 2))


def test_empty_head_changes_nothing() -> None:
    vectors = torch.randn(3, 4)
    assert torch.equal(EmptyHead(4)(vectors), vectors)
    assert not list(EmptyHead(4).parameters())


@given(size=st.integers(1, 8), n_layers=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_skip_connection_head_equals_its_formula_in_float64(size: int, n_layers: int) -> None:
    head = SkipConnectionHead(size, n_layers=n_layers).double()
    expected = vectors = torch.randn(3, size, dtype=torch.float64)
    state = head.state_dict()
    for i in range(n_layers):
        gates = 1 / (1 + torch.exp(-state[f"gates_{i}"]))
        expected = expected + gates * (expected @ state[f"fc_{i}.weight"].T + state[f"fc_{i}.bias"])
    torch.testing.assert_close(head(vectors), expected)


def test_skip_connection_head_starts_near_the_identity_and_gets_gradients() -> None:
    head, vectors = SkipConnectionHead(16, n_layers=2), torch.randn(8, 16)
    assert float((head(vectors) - vectors).detach().abs().max()) < 0.2
    head(vectors).square().sum().backward()
    assert all(bool((parameter.grad != 0).any()) for parameter in head.parameters() if parameter.grad is not None)
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_skip_dropout_leaves_the_vectors_themselves_alone() -> None:
    head = SkipConnectionHead(64, skip_dropout=0.9).train()
    torch.nn.init.zeros_(head.get_submodule("fc_0").bias)  # type: ignore[arg-type]
    vectors = torch.randn(4, 64)
    assert not torch.equal(head(vectors), head(vectors))
    assert float((head(vectors) - vectors).detach().abs().max()) < 1.0


@pytest.mark.parametrize("n_layers", [0, -1])
def test_skip_connection_head_needs_a_layer(n_layers: int) -> None:
    with pytest.raises(ConfigError, match=f"n_layers must be a positive integer, got {n_layers}"):
        SkipConnectionHead(4, n_layers=n_layers)


@pytest.mark.parametrize("activation", simtrain.heads.stacked_projection_head.ACTIVATIONS)
def test_stacked_projection_head_equals_its_formula(activation: str) -> None:
    head = StackedProjectionHead(5, [4, 3], activation_fn=activation)
    vectors, state = torch.randn(6, 5), head.state_dict()
    hidden = vectors @ state["_stack.0.weight"].T + state["_stack.0.bias"]
    expected = getattr(torch.nn.functional, activation)(hidden) @ state["_stack.2.weight"].T + state["_stack.2.bias"]
    torch.testing.assert_close(head(vectors), expected)
    assert activation in repr(head)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"output_sizes": []}, r"output_sizes must be a list of one or more sizes, got \[\]"),
        ({"output_sizes": [4, 0]}, "every one of output_sizes must be a positive integer, got 0"),
        ({"activation_fn": "rellu"}, "unknown activation_fn 'rellu'; did you mean 'relu'"),
        ({"activation_fn": "cross_entropy"}, "unknown activation_fn 'cross_entropy'"),
    ],
)
def test_stacked_projection_head_refuses_wrong_layers(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StackedProjectionHead(**{"input_embedding_size": 3, "output_sizes": [2], **words})


def test_an_identity_start_gives_the_input_exactly_and_still_learns():
    head = SkipConnectionHead(6, n_layers=2, identity_init=True)
    vectors = torch.randn(5, 6)
    assert torch.equal(head(vectors), vectors)
    head(vectors).square().sum().backward()
    assert float(head.fc_0.weight.grad.abs().max()) > 0
    assert "identity_init" not in head.get_config_dict()


def test_the_default_start_is_that_of_quaterion_models():
    head = SkipConnectionHead(6)
    state = head.state_dict()
    assert torch.equal(state["gates_0"], torch.full((6,), -4.0))
    assert float(state["fc_0.weight"].abs().max()) > 0
