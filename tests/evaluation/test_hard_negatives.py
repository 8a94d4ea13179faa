"""Corpus mining against a search by loops."""

import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simtrain.data import SimilarityPairSample, read_triplets
from simtrain.encoders import PrecomputedEncoder
from simtrain.errors import ConfigError, DataError
from simtrain.evaluation import hard_negatives, mine_hard_negatives
from simtrain.evaluation.negative_choice import choose
from simtrain.heads import AsymmetricHead, EmptyHead, LinearHead
from simtrain.models import SimilarityModel
from tests.training.models import BagEncoder

MODEL = SimilarityModel(PrecomputedEncoder(3), EmptyHead(3))


def vectors(seed, n):
    generator = np.random.default_rng(seed)
    return [tuple(row) for row in generator.integers(-2, 3, (n, 3)).astype(float).tolist() if any(row)]


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.dist(a, (0, 0, 0)) / math.dist(b, (0, 0, 0))


def brute_force(queries, corpus, positives, k, margin, relative_margin, max_score, min_score, range_min, range_max):
    """(query, positive) → scores of the negatives, nearest first."""
    matches = {}
    for query, items in zip(queries, positives, strict=True):
        matches.setdefault(query, {query}).update(items)
    found = {}
    for query, items in zip(queries, positives, strict=True):
        others = sorted({item for item in corpus if item not in matches[query]}, key=lambda item: -cosine(query, item))
        for positive in items:
            at = cosine(query, positive)
            bounds = [
                math.inf if margin is None else at - margin,
                math.inf if relative_margin is None else at - relative_margin * abs(at),
                math.inf if max_score is None else max_score,
            ]
            scores = [cosine(query, item) for item in others[range_min:range_max]]
            least = -math.inf if min_score is None else min_score
            found[query, positive] = [score for score in scores if least <= score <= min(bounds)][:k]
    return found


# Off the round numbers, at which a score in float32 may fall on either side of a bound.
rule = st.one_of(st.none(), st.integers(1, 60).map(lambda n: n / 100 + 0.00123))


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    sizes=st.tuples(st.integers(1, 8), st.integers(1, 30)),
    k=st.integers(1, 4),
    rules=st.tuples(rule, rule, rule),
    min_score=st.one_of(st.none(), st.integers(-60, 10).map(lambda n: n / 100 + 0.00123)),
    range_min=st.integers(0, 3),
)
def test_equals_a_search_by_loops(seed, sizes, k, rules, min_score, range_min):
    queries, corpus = vectors(seed, sizes[0]), vectors(seed + 1, sizes[1])
    if not queries or not corpus:
        return
    generator = np.random.default_rng(seed)
    positives = [[corpus[generator.integers(len(corpus))], (1.0, 2.0, 5.0)] for _ in queries]
    # A share of zero is zero: which side of it a score lies on is then a matter of rounding.
    assume(all(abs(cosine(query, one)) > 1e-6 for query, own in zip(queries, positives, strict=True) for one in own))
    words = dict(zip(("margin", "relative_margin", "max_score"), rules, strict=True))
    words |= {"min_score": min_score, "range_min": range_min, "range_max": 9}
    mined = mine_hard_negatives(MODEL, queries, corpus, positives, k, **words)
    expected = brute_force(queries, corpus, positives, k, **words)
    assert set(mined.pairs) == set(expected)
    for pair, rows, scores in zip(mined.pairs, mined.rows.tolist(), mined.scores.tolist(), strict=True):
        got = [score for row, score in zip(rows, scores, strict=True) if row >= 0]
        assert got == pytest.approx(expected[pair], abs=1e-6)
        assert got == pytest.approx([cosine(pair[0], mined.items[row]) for row in rows if row >= 0], abs=1e-6)
    assert mined.n_without == sum(not scores for scores in expected.values())
    assert mined.n_short == sum(0 < len(scores) < k for scores in expected.values())


def test_duplicates_of_positives_and_of_the_query_are_no_negatives():
    encoder = SimilarityModel(BagEncoder(), EmptyHead(8)).eval()
    corpus = ["red shoe", "a hat", "red shoe", "red shoes", "how red", "a hat"]
    mined = mine_hard_negatives(encoder, ["how red", "how red"], corpus, ["red shoe", ["red shoes"]], k=4)
    assert mined.pairs == [("how red", "red shoe"), ("how red", "red shoes")]
    assert [sample.negatives for sample in mined.triplets()] == [["a hat"], ["a hat"]]


def test_queries_and_documents_are_encoded_by_their_sides():
    head = AsymmetricHead(query=LinearHead(3, 3), document=EmptyHead(3))
    model = SimilarityModel(PrecomputedEncoder(3), head).eval()
    queries, corpus = vectors(0, 5), list(dict.fromkeys(vectors(1, 20)))
    mined = mine_hard_negatives(model, queries, corpus, [(9.0, 9.0, 1.0)] * len(queries), k=3)
    scores = torch.cosine_similarity(
        model.encode_query([query for query, _ in mined.pairs], to_numpy=False).unsqueeze(1),
        model.encode_document([mined.items[row] for rows in mined.rows.tolist() for row in rows], to_numpy=False).view(
            -1, 3, 3
        ),
        dim=2,
    )
    torch.testing.assert_close(mined.scores, scores)


def test_a_random_choice_is_seeded_within_the_range_and_independent_of_blocks(monkeypatch):
    queries, corpus = list(dict.fromkeys(vectors(0, 40))), list(dict.fromkeys(vectors(1, 200)))
    positives = [corpus[i % 7] for i in range(len(queries))]
    words = {"k": 3, "sampling": "random", "range_min": 2, "range_max": 20}
    mined = mine_hard_negatives(MODEL, queries, corpus, positives, seed=1, **words)
    top = mine_hard_negatives(MODEL, queries, corpus, positives, k=18, range_min=2, range_max=20)
    assert (mined.rows >= 0).all()
    for rows, pool in zip(mined.rows.tolist(), top.rows.tolist(), strict=True):
        assert len(set(rows)) == 3
        assert set(rows) <= set(pool)
    assert (mined.scores[:, :-1] >= mined.scores[:, 1:]).all()
    assert not torch.equal(mined.rows, mine_hard_negatives(MODEL, queries, corpus, positives, seed=2, **words).rows)
    monkeypatch.setattr(hard_negatives, "_BLOCK", 3)
    assert torch.equal(mined.rows, mine_hard_negatives(MODEL, queries, corpus, positives, seed=1, **words).rows)


def test_every_allowed_candidate_is_drawn_equally_often():
    allowed = torch.tensor([[True, False, True, True, False, True]]).repeat(4000, 1)
    columns, found = choose(allowed, 2, np.random.default_rng(0))
    assert found.all()
    counts = columns.flatten().bincount(minlength=6)
    assert counts[[1, 4]].tolist() == [0, 0]
    assert (counts[[0, 2, 3, 5]] / 8000).tolist() == pytest.approx([0.25] * 4, abs=0.02)


def test_memory_does_not_grow_with_queries_times_corpus(monkeypatch):
    # Not one tensor of queries x corpus: the largest thing asked of the search is a block of queries.
    seen = []

    def watched(queries, gallery, k, **words):
        seen.append((len(queries), k))
        return top_k(queries, gallery, k, **words)

    top_k = hard_negatives.top_k
    monkeypatch.setattr(hard_negatives, "top_k", watched)
    monkeypatch.setattr(hard_negatives, "_BLOCK", 16)
    generator = np.random.default_rng(0)
    queries = [tuple(row) for row in generator.normal(size=(100, 3)).tolist()]
    mine_hard_negatives(MODEL, queries, queries, [[query] for query in queries], k=2, range_max=10)
    assert max(n for n, _ in seen) <= 16
    assert {k for _, k in seen} == {11}  # and the query itself, its only match


@pytest.mark.parametrize("name", ["mined.jsonl", "mined.parquet"])
def test_a_file_is_read_back_as_triplets(tmp_path, name):
    encoder = SimilarityModel(BagEncoder(), EmptyHead(8)).eval()
    corpus = ["shoe", "hat", "a red hat", "“quoted”\nline"]
    mined = mine_hard_negatives(encoder, ["red", "line"], corpus, ["a red hat", "“quoted”\nline"], k=2)
    mined.save(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    back = read_triplets(tmp_path / name)
    assert [back[i] for i in range(len(back))] == mined.triplets()
    assert len(mined) == 2


def test_labelled_pairs():
    mined = mine_hard_negatives(MODEL, [(1.0, 0.0, 0.0)], [(1.0, 1.0, 0.0), (0.0, 1.0, 0.0)], [(1.0, 1.0, 0.0)], k=1)
    assert mined.labelled_pairs() == [
        SimilarityPairSample((1.0, 0.0, 0.0), (1.0, 1.0, 0.0)),
        SimilarityPairSample((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), 0.0),
    ]


def test_queries_left_without_negatives_are_counted_and_left_out(caplog):
    corpus = [(1.0, 0.1, 0.0), (1.0, 0.2, 0.0)]
    with caplog.at_level(logging.WARNING):
        mined = mine_hard_negatives(MODEL, [(1.0, 0.0, 0.0)], corpus, [corpus[0]], k=1, max_score=0.5)
    assert (mined.n_without, len(mined), mined.triplets()) == (1, 0, [])
    assert "of 1 pairs of query and positive, 1 have no negative left and 0 fewer than 1" in caplog.text
    with pytest.raises(DataError, match="no pair has a negative left"):
        mined.save("nowhere.jsonl")


def test_what_cannot_be_saved_is_refused(tmp_path):
    mined = mine_hard_negatives(MODEL, [(1.0, 0.0, 0.0)], [(1.0, 1.0, 0.0), (0.0, 1.0, 0.0)], [(1.0, 1.0, 0.0)], k=1)
    with pytest.raises(DataError, match="only texts can be saved to a file, got a tuple"):
        mined.save(tmp_path / "a.jsonl")
    with pytest.raises(ConfigError, match=r"saved as .jsonl or .parquet, got 'a.csv'"):
        mined.save(tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"k": 0}, "k is a whole number, 1 or more, got 0"),
        ({"range_min": -1}, "range_min is a whole number, 0 or more, got -1"),
        ({"range_min": 98}, "range_max=100 leaves no room for k=5 negatives after range_min=98"),
        ({"margin": float("nan")}, "margin should be a finite number or None, got nan"),
        ({"relative_margin": 1.0}, "relative_margin is a share, from 0 to below 1, got 1.0"),
        ({"sampling": "tops"}, "unknown sampling 'tops'; did you mean 'top'"),
    ],
)
def test_wrong_rules_are_refused(words, message):
    with pytest.raises(ConfigError, match=f"mine_hard_negatives: {message}"):
        mine_hard_negatives(MODEL, [(1.0, 0.0, 0.0)], [(1.0, 1.0, 0.0)], [(1.0, 1.0, 0.0)], **words)


@pytest.mark.parametrize(
    ("queries", "corpus", "positives", "message"),
    [
        ([], [(1.0, 0.0, 0.0)], [], "got 0 queries and 0 positives"),
        ([(1.0, 0.0, 0.0)], [(1.0, 0.0, 0.0)], [], "got 1 queries and 0 positives"),
        ([(1.0, 0.0, 0.0)], [], [(1.0, 0.0, 0.0)], "needs a corpus to search in, got no item"),
        ([(1.0, 0.0, 0.0)], [(1.0, 0.0, 0.0)], [[]], "query 0 has no positive; leave it out"),
        ([[1.0, 0.0, 0.0]], [(1.0, 0.0, 0.0)], [(1.0, 0.0, 0.0)], "query 0 should be hashable .* got a list"),
        ([(1.0, 0.0, 0.0)], [[1.0, 0.0, 0.0]], [(1.0, 0.0, 0.0)], "item of the corpus 0 should be hashable"),
        ([(1.0, 0.0, 0.0)], [(1.0, 0.0, 0.0)], [[[1.0]]], "a positive of query 0 should be hashable"),
    ],
)
def test_wrong_data_are_refused(queries, corpus, positives, message):
    with pytest.raises(DataError, match=message):
        mine_hard_negatives(MODEL, queries, corpus, positives)
