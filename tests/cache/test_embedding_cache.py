import pickle

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from simtrain.cache import CacheConfig, EmbeddingCache, MemoryStore, open_cache
from simtrain.errors import CacheError
from tests.cache.cached_texts import TEXTS, close, expected


def test_rows_give_each_item_its_own_embedding(make_encoder, opened):
    encoder = make_encoder()
    cache = opened(encoder)
    cache.fill(TEXTS, batch_size=7)
    assert close(cache.gather(cache.rows(TEXTS[::-1])), expected(make_encoder(), TEXTS[::-1]))


def test_equal_items_are_encoded_once(make_encoder, opened):
    encoder = make_encoder()
    report = opened(encoder).fill(TEXTS + TEXTS[:10], batch_size=8)
    assert encoder.n_encoded == 40
    assert (report.n_items, report.n_unique, report.n_reused, report.n_encoded) == (50, 40, 0, 40)


def test_a_warm_start_from_disk_encodes_nothing(make_encoder, tmp_path):
    config = CacheConfig("disk", save_dir=tmp_path)
    open_cache("text", make_encoder(), config, "disk").fill(TEXTS)
    encoder = make_encoder()
    cache = open_cache("text", encoder, config, "disk")
    cache.fill(TEXTS)
    assert encoder.batches == []
    assert close(cache.gather(cache.rows(TEXTS)), expected(make_encoder(), TEXTS))


EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("change"), st.integers(0, 50), st.text(max_size=3)),
        st.tuples(st.just("insert"), st.integers(0, 50), st.text(max_size=3)),
        st.tuples(st.just("delete"), st.integers(0, 50), st.just("")),
        st.tuples(st.just("duplicate"), st.integers(0, 50), st.just("")),
        st.tuples(st.just("reverse"), st.just(0), st.just("")),
        st.tuples(st.just("swap"), st.integers(0, 50), st.just("")),
    ),
    max_size=6,
)


def edited(texts: list[str], edit: tuple[str, int, str]) -> list[str]:
    kind, place, text = edit
    texts = texts[::-1] if kind == "reverse" else list(texts)
    place = place % (len(texts) + 1)
    if kind == "insert":
        texts.insert(place, text)
    elif texts and kind == "change":
        texts[place % len(texts)] = text
    elif texts and kind == "swap":
        other = place * 7 % len(texts)
        texts[place % len(texts)], texts[other] = texts[other], texts[place % len(texts)]
    elif texts and kind == "delete":
        del texts[place % len(texts)]
    elif texts and kind == "duplicate":
        texts.append(texts[place % len(texts)])
    return texts


@pytest.mark.parametrize("kind", ["cpu", "disk"])
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(texts=st.lists(st.text(max_size=3), max_size=8), edits=EDITS)
def test_any_edit_of_the_data_equals_recomputation(make_encoder, tmp_path_factory, kind, texts, edits):
    config = CacheConfig(save_dir=tmp_path_factory.mktemp("cache"))
    encoder = make_encoder()
    cache = open_cache("text", encoder, config, kind)
    seen: set[str] = set()
    for edit in [("none", 0, ""), *edits]:
        texts = edited(texts, edit)
        if kind == "disk":  # as a new run would
            cache = open_cache("text", encoder, config, kind)
        encoder.batches.clear()
        cache.fill(texts, batch_size=3)
        assert encoder.n_encoded == len(set(texts) - seen)
        seen |= set(texts)
        if texts:
            assert close(cache.gather(cache.rows(texts)), expected(make_encoder(), texts))


def test_changed_weights_are_encoded_again(make_encoder, tmp_path):
    config = CacheConfig("disk", save_dir=tmp_path)
    open_cache("text", make_encoder(), config, "disk").fill(TEXTS)
    encoder = make_encoder()
    with torch.no_grad():
        encoder.weight += 1
    cache = open_cache("text", encoder, config, "disk")
    assert cache.fill(TEXTS).n_encoded == 40
    assert close(cache.gather(cache.rows(TEXTS)), expected(encoder, TEXTS))


@pytest.mark.parametrize("extractor", [None, str.upper])
def test_workers_give_the_same_vectors(make_encoder, opened, extractor, tmp_path):
    words = {"key_extractors": extractor}
    alone, helped = opened(make_encoder(), **words), open_cache("text", make_encoder(), CacheConfig(**words), "cpu")
    alone.fill(TEXTS, batch_size=4, num_workers=0)
    helped.fill(TEXTS, batch_size=4, num_workers=2)
    assert torch.equal(alone.gather(alone.rows(TEXTS)), helped.gather(helped.rows(TEXTS)))
    assert close(helped.gather(helped.rows(TEXTS)), expected(make_encoder(), TEXTS))


def test_gathered_embeddings_can_be_trained_on(make_encoder):
    cache = EmbeddingCache(make_encoder(), MemoryStore(4))
    cache.fill(TEXTS)
    head = nn.Linear(4, 2)
    head(cache.gather(cache.rows(TEXTS))).sum().backward()
    assert head.weight.grad is not None


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_stored_and_float32_given(make_encoder, opened, dtype):
    cache = opened(make_encoder(), dtype=dtype)
    cache.fill(TEXTS)
    got = cache.gather(cache.rows(TEXTS))
    assert got.dtype == torch.float32
    assert torch.allclose(got, expected(make_encoder(), TEXTS), atol=0.05)
    assert torch.equal(got, got.to(getattr(torch, dtype)).float())


def test_items_that_share_a_key_share_an_embedding(make_encoder):
    cache = EmbeddingCache(make_encoder(), MemoryStore(4), key_extractor=lambda item: item["id"])
    encoder = cache.encoder
    collate = encoder.get_collate_fn()
    encoder.get_collate_fn = lambda: lambda items: collate([item["text"] for item in items])
    encoder.item_length = lambda item: len(item["text"])
    items = [{"id": 1, "text": "a", "noise": object()}, {"id": 2, "text": "b"}, {"id": 1, "text": "a"}]
    assert cache.fill(items).n_encoded == 2
    assert cache.rows(items).tolist() == [0, 1, 0]


def test_unknown_objects_are_named(make_encoder, opened):
    cache = opened(make_encoder())
    cache.fill(TEXTS)
    with pytest.raises(CacheError, match="cache of encoder 'text' has no embedding of 'unseen': the data set gives"):
        cache.rows([TEXTS[0], "unseen"])


def test_the_row_lookup_can_be_sent_to_workers(make_encoder, opened):
    cache = opened(make_encoder())
    cache.fill(TEXTS)
    sent = pickle.loads(pickle.dumps(cache.row_lookup))
    assert torch.equal(sent(TEXTS), cache.rows(TEXTS))
    assert len(pickle.dumps(cache.row_lookup)) < 64 * len(TEXTS) + 2000


def test_rows_of_many_items_are_numbers_of_the_store(make_encoder, opened):
    cache = opened(make_encoder())
    cache.fill(TEXTS)
    assert sorted(cache.rows(TEXTS).tolist()) == list(range(40))
    assert np.array_equal(np.unique(cache.rows(TEXTS * 2).numpy()), np.arange(40))
