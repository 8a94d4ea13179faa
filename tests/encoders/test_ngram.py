from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from simtrain.cache.fingerprint import encoder_fingerprint
from simtrain.encoders import NgramEncoder
from simtrain.errors import ConfigError, ServableError

TEXTS = ["red shoes", "numpy.linalg.norm", "", "the red shoe of my sister"]


def embedded(encoder: NgramEncoder, texts: list[str]) -> torch.Tensor:
    with torch.no_grad():
        return encoder(encoder.get_collate_fn()(texts))


def test_an_embedding_is_the_mean_of_its_vectors() -> None:
    encoder = NgramEncoder(8, n_buckets=50)
    batch = encoder.get_collate_fn()(TEXTS)
    ends = [*batch["offsets"].tolist()[1:], len(batch["buckets"])]
    rows = [batch["buckets"][s:e] for s, e in zip(batch["offsets"].tolist(), ends, strict=True)]
    table = encoder.vectors.weight.detach()
    means = torch.stack([table[row].mean(0) if len(row) else torch.zeros(8) for row in rows])
    torch.testing.assert_close(embedded(encoder, TEXTS), means)
    assert embedded(encoder, TEXTS)[2].abs().sum() == 0
    by_root = NgramEncoder(8, n_buckets=50, weighting="sqrt")
    by_root.load_state_dict(encoder.state_dict())
    roots = torch.tensor([len(row) ** 0.5 for row in rows])[:, None]
    torch.testing.assert_close(embedded(by_root, TEXTS), means * roots)


@pytest.mark.parametrize("weighting", ["mean", "sqrt"])
@pytest.mark.parametrize("items", [[], [""], ["", "  "]])
def test_nothing_gives_zeros(items: list[str], weighting: str) -> None:
    embeddings = embedded(NgramEncoder(4, weighting=weighting), items)
    assert embeddings.shape == (len(items), 4)
    assert not embeddings.any()


def test_gradients_are_finite_also_for_empty_texts() -> None:
    for weighting in ("mean", "sqrt"):
        encoder = NgramEncoder(4, n_buckets=20, weighting=weighting)
        encoder(encoder.get_collate_fn()(["", "a", ""])).square().sum().backward()
        assert torch.isfinite(encoder.vectors.weight.grad).all()
        assert encoder.vectors.weight.grad.any()


def test_it_learns_to_match_translations() -> None:
    pairs = [("house", "casa"), ("dog", "perro"), ("tree", "arbol"), ("water", "agua"), ("sun", "sol"), ("sea", "mar")]
    encoder = NgramEncoder(16, n_buckets=2**12, sparse=True)
    optimizer = torch.optim.SparseAdam(encoder.parameters(), lr=0.05)
    collate = encoder.get_collate_fn()
    sides = [collate(list(side)) for side in zip(*pairs, strict=True)]

    def scores() -> torch.Tensor:
        a, b = (functional.normalize(encoder(side), dim=1) for side in sides)
        return 10 * a @ b.T

    target = torch.arange(len(pairs))
    assert (scores().argmax(1) == target).sum() < len(pairs)
    for _ in range(60):
        optimizer.zero_grad()
        functional.cross_entropy(scores(), target).backward()
        optimizer.step()
    assert (scores().argmax(1) == target).all()


def test_frozen_stays_as_it_is() -> None:
    encoder = NgramEncoder(4, trainable=False)
    assert encoder.train() is encoder
    assert not encoder.vectors.training
    assert not encoder.vectors.weight.requires_grad
    assert not encoder.trainable
    assert NgramEncoder(4).train().vectors.training


def test_saves_and_loads(tmp_path: Path) -> None:
    saved = NgramEncoder(8, 100, (2, 4), "sqrt", trainable=False)
    saved.save(tmp_path)
    loaded = NgramEncoder.load(tmp_path)
    assert torch.equal(embedded(loaded, TEXTS), embedded(saved, TEXTS))
    assert loaded.get_config_dict() == saved.get_config_dict()
    assert encoder_fingerprint(loaded) == encoder_fingerprint(saved)
    (tmp_path / "weights.safetensors").write_bytes(b"")
    with pytest.raises(ServableError, match=r"weights\.safetensors is damaged"):
        NgramEncoder.load(tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"embedding_size": 0}, "embedding_size must be a positive integer, got 0"),
        ({"n_buckets": -1}, "n_buckets must be a positive integer, got -1"),
        ({"ngrams": (3,)}, r"ngrams must be two numbers, the shortest and the longest, as \(3, 5\), got \(3,\)"),
        ({"ngrams": (5, 3)}, "ngrams must be the shortest and the longest, got 5 and 3"),
        ({"ngrams": (0, 3)}, "ngrams must be a positive integer, got 0"),
        ({"weighting": "sum"}, "unknown weighting 'sum'; accepted: 'mean', 'sqrt'"),
    ],
)
def test_wrong_arguments_are_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NgramEncoder(**words)


def test_collating_is_fast() -> None:
    texts = [f"a short text number {i} about shoes" for i in range(5000)]
    collate = NgramEncoder(4).get_collate_fn()
    start = time.process_time()
    for first in range(0, len(texts), 250):
        collate(texts[first : first + 250])
    # Over 80,000 a second on one core of a laptop; a loop over n-grams makes 5,000.
    assert len(texts) / (time.process_time() - start) > 10_000
