from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simtrain.encoders.ngram_hashing import _BASE, _INVERSE, NgramHash, normalized
from simtrain.errors import DataError

texts = st.text(st.one_of(st.characters(), st.sampled_from("ab ä東.,_ \n")), max_size=30)


def mixed(value: int) -> int:
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
    return value ^ (value >> 31)


def bucket(ngram: str, size: int, n_buckets: int) -> int:
    total = sum(mixed(ord(character)) * pow(_BASE, place, 2**64) for place, character in enumerate(ngram))
    return mixed((total + size * _INVERSE) % 2**64) % n_buckets


def by_hand(text: str, n_buckets: int, shortest: int, longest: int) -> list[int]:
    """The buckets of one text, sorted."""
    found = []
    for word in normalized(text).split(" "):
        padded = f" {word} "
        if not word:
            continue
        found.append(bucket(padded, 0, n_buckets))
        for size in range(shortest, longest + 1):
            grams = [padded[i : i + size] for i in range(len(padded) - size + 1)]
            found += [bucket(gram, size, n_buckets) for gram in grams if gram != " "]
    return sorted(found)


def per_text(batch: dict[str, torch.Tensor]) -> list[list[int]]:
    ends = [*batch["offsets"].tolist()[1:], len(batch["buckets"])]
    return [sorted(batch["buckets"][s:e].tolist()) for s, e in zip(batch["offsets"].tolist(), ends, strict=True)]


@given(
    st.lists(texts, max_size=6),
    st.sampled_from([(3, 5), (1, 2), (2, 2), (4, 9)]),
    st.sampled_from([1, 7, 2**16, 2**40 + 15]),
)
def test_equals_hashing_one_ngram_after_the_other(items: list[str], sizes: tuple[int, int], n_buckets: int) -> None:
    batch = NgramHash(n_buckets, *sizes)(items)
    assert batch["offsets"].shape == (len(items),)
    assert batch["buckets"].dtype == batch["offsets"].dtype == torch.int64
    if items:
        assert per_text(batch) == [by_hand(item, n_buckets, *sizes) for item in items]


@given(st.lists(texts, min_size=1, max_size=5))
def test_a_text_is_hashed_alike_in_any_batch(items: list[str]) -> None:
    hashing = NgramHash(2**16, 3, 5)
    assert per_text(hashing(items)) == [per_text(hashing([item]))[0] for item in items]


def test_no_ngram_reaches_into_the_next_word_or_text() -> None:
    hashing = NgramHash(2**40, 2, 6)
    apart = [set(per_text(hashing([word]))[0]) for word in ("red", "shoe")]
    assert set(per_text(hashing(["red shoe"]))[0]) == apart[0] | apart[1]


@pytest.mark.parametrize(
    ("a", "b"),
    [("Red Shoe", "red  shoe\n"), ("ﬁsh", "fish"), ("a.b", "a . b"), ("Å", "å"), ("x_y", "x _ y")],
)
def test_spellings_of_one_text_are_hashed_alike(a: str, b: str) -> None:
    one, other = per_text(NgramHash(2**16, 3, 5)([a, b]))
    assert one == other


def test_different_texts_differ() -> None:
    words = ["c++", "c#", "c", "🙂", "🙃", "東京", "京都", "हिन्दी", "?", "!", "ab", "ba", "aab", "aba"]
    assert len({tuple(found) for found in per_text(NgramHash(2**40, 3, 5)(words))}) == len(words)


def test_hashes_are_spread_evenly() -> None:
    generator = np.random.default_rng(0)
    words = ["".join(map(chr, generator.integers(97, 123, 8))) for _ in range(4000)]
    counts = torch.bincount(NgramHash(64, 3, 5)(words)["buckets"], minlength=64).double()
    assert counts.min() > 0.7 * counts.mean()
    assert counts.max() < 1.3 * counts.mean()


def test_hashes_stay_what_they_are_in_every_process() -> None:
    """Trained tables depend on them: a change here makes every saved NgramEncoder worthless."""
    hashing = pickle.loads(pickle.dumps(NgramHash(2**16, 3, 3)))
    assert hashing(["Ab"])["buckets"].tolist() == [65420, 26403, 16290]


@pytest.mark.parametrize("items", [[], [""], ["", " \n", ""], ["a", ""], ["", "a"]])
def test_texts_without_content_have_no_ngrams(items: list[str]) -> None:
    batch = NgramHash(100, 3, 5)(items)
    assert [bool(found) for found in per_text(batch)] == [bool(item.strip()) for item in items] if items else True
    assert len(batch["offsets"]) == len(items)


def test_what_is_no_text_is_named(without_type_checks: Any) -> None:
    with pytest.raises(DataError, match=r"^item 1 must be a text \(str\), got NoneType None"):
        NgramHash(100, 3, 5)(["a", None])
