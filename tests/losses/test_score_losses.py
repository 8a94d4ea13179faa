"""Losses over pairs with graded scores, and over a teacher's, against their formulas written with loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cosine_similarity

from simtrain.errors import ConfigError, DataError
from simtrain.losses import CoSENTLoss, CosineSimilarityLoss, Distance, DistillKLDivLoss, MarginMSELoss, pair_distances

NAMES = [distance.value for distance in Distance]


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def integers(seed, high, *shape):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def similarity(a, b, distance):
    return cosine_similarity(a, b, dim=0) if distance == "cosine" else -pair_distances(a[None], b[None], distance)[0]


def similarities(x, pairs, distance):
    return [similarity(x[a], x[b], distance) for a, b in pairs.tolist()]


def same_query(pairs, subgroups, i, j):
    a, b = int(pairs[i, 0]), int(pairs[j, 0])
    return a == b or (subgroups[a] == subgroups[b] != 0)


def cosent(x, pairs, labels, subgroups, scale, distance):
    s, total = similarities(x, pairs, distance), 1 + (x * 0).sum()
    for i in range(len(s)):
        for j in range(len(s)):
            if labels[i] > labels[j]:
                total = total + torch.exp(scale * (s[j] - s[i]))
    return torch.log(total)


def cosine_regression(x, pairs, labels, subgroups):
    terms = [(s - y) ** 2 for s, y in zip(similarities(x, pairs, "cosine"), labels, strict=True)]
    return torch.stack(terms).mean()


def margin_mse(x, pairs, labels, subgroups, distance, scale):
    s = [scale * one for one in similarities(x, pairs, distance)]
    terms = [
        ((s[i] - s[j]) - (labels[i] - labels[j])) ** 2
        for i in range(len(s))
        for j in range(i)
        if same_query(pairs, subgroups, i, j)
    ]
    return torch.stack(terms).mean() if terms else (x * 0).sum()


def kl_div(x, pairs, labels, subgroups, temperature, teacher_temperature, distance):
    s, terms, seen = similarities(x, pairs, distance), [], set()
    for i in range(len(s)):
        members = [j for j in range(len(s)) if same_query(pairs, subgroups, i, j)]
        if i in seen or len(members) < 2:
            continue
        seen |= set(members)
        own = torch.stack([s[j] for j in members]).div(temperature).log_softmax(0)
        wanted = (labels[members] / teacher_temperature).softmax(0)
        terms.append((wanted * (wanted.log() - own)).sum())
    return torch.stack(terms).mean() if terms else (x * 0).sum()


CASES = {
    **{f"cosent, {name}": (CoSENTLoss, cosent, (2.0, name)) for name in NAMES},
    "cosine": (CosineSimilarityLoss, cosine_regression, ()),
    **{f"margin mse, {name}": (MarginMSELoss, margin_mse, (name, 1.5)) for name in NAMES},
    **{f"kl, {name}": (DistillKLDivLoss, kl_div, (0.3, 0.7, name)) for name in NAMES},
}


def assert_same(value, expected, embeddings):
    torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-8)
    (got,), (wanted,) = torch.autograd.grad(value, embeddings), torch.autograd.grad(expected, embeddings)
    torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 7),
    n_subgroups=st.integers(1, 3),
    loaded=st.booleans(),
    grades=st.sampled_from([2, 4, 1000]),
)
def test_equals_the_formula(case, seed, n, n_subgroups, loaded, grades):
    kind, formula, numbers = CASES[case]
    # As loaded, each pair has rows of its own; else pairs share first rows, as those of a triplet do.
    first = torch.arange(n) if loaded else integers(seed + 1, 2, n)
    pairs = torch.stack([first, torch.arange(n) + n], dim=1)
    embeddings = draw(seed, 2 * n, 3).requires_grad_()
    labels = integers(seed + 2, grades, n).double() / grades
    subgroups = integers(seed + 3, n_subgroups, n).repeat(2) if loaded else torch.zeros(2 * n, dtype=torch.long)
    expected = formula(embeddings, pairs, labels, subgroups, *numbers)
    assert_same(kind(*numbers)(embeddings, pairs, labels, subgroups), expected, embeddings)


def test_cosent_minds_the_order_of_scores_only():
    embeddings, pairs, rows = draw(0, 12, 4), torch.arange(12).view(2, 6).T, torch.zeros(12, dtype=torch.long)
    scores = torch.tensor([0.1, 0.9, 0.4, 0.4, 0.0, 1.0], dtype=torch.float64)
    loss = CoSENTLoss()
    torch.testing.assert_close(loss(embeddings, pairs, scores, rows), loss(embeddings, pairs, 5 * scores.exp(), rows))
    assert loss.figures()["n_active"] == 14  # of 15 comparisons, one is of equal scores
    assert loss(embeddings, pairs, torch.ones(6).double(), rows) == 0


def test_a_large_scale_does_not_overflow():
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    pairs, rows = torch.tensor([[0, 2], [1, 3]]), torch.zeros(4, dtype=torch.long)
    value = CoSENTLoss(scale=1e4)(embeddings, pairs, torch.tensor([1.0, 0.0]), rows)
    assert value.item() == pytest.approx(2e4)
    assert torch.autograd.grad(value, embeddings)[0].isfinite().all()


def test_margin_mse_of_a_match_and_a_mismatch_is_the_papers():
    query, match, mismatch = draw(0, 5, 4), draw(1, 5, 4), draw(2, 5, 4)
    scores = draw(3, 10)
    pairs = torch.cat([torch.stack([torch.arange(5), torch.arange(5) + k], dim=1) for k in (5, 10)])
    margins = (query * match).sum(1) - (query * mismatch).sum(1)
    expected = torch.nn.functional.mse_loss(margins, scores[:5] - scores[5:])
    loss = MarginMSELoss()
    value = loss(torch.cat([query, match, mismatch]), pairs, scores, torch.zeros(15, dtype=torch.long))
    torch.testing.assert_close(value, expected)
    assert loss.figures()["n_active"] == 10


@pytest.mark.parametrize("loss", [CoSENTLoss(), MarginMSELoss(), DistillKLDivLoss()], ids=repr)
def test_without_comparable_pairs_loss_and_gradient_are_zero(loss):
    embeddings = torch.randn(6, 3, requires_grad=True)
    pairs, rows = torch.arange(6).view(2, 3).T, torch.zeros(6, dtype=torch.long)
    value = loss(embeddings, pairs, torch.ones(3), rows)
    assert value.item() == 0
    assert (torch.autograd.grad(value, embeddings)[0] == 0).all()
    assert float(loss.figures()["n_active"]) == 0


def test_a_student_that_agrees_has_no_loss():
    embeddings, pairs = draw(0, 4, 3), torch.tensor([[0, 1], [0, 2], [0, 3]])
    cosines = torch.stack(similarities(embeddings, pairs, "cosine"))
    rows = torch.zeros(4, dtype=torch.long)
    assert CosineSimilarityLoss()(embeddings, pairs, cosines, rows).item() == pytest.approx(0)
    assert MarginMSELoss("cosine")(embeddings, pairs, cosines + 3, rows).item() == pytest.approx(0)
    assert DistillKLDivLoss(0.1, 0.1)(embeddings, pairs, cosines - 2, rows).item() == pytest.approx(0)


@pytest.mark.usefixtures("without_type_checks")
def test_wrong_settings_and_batches_are_refused():
    with pytest.raises(ConfigError, match="CoSENTLoss: scale must be a finite number above zero, got 0"):
        CoSENTLoss(scale=0)
    with pytest.raises(ConfigError, match="DistillKLDivLoss: teacher_temperature must be a finite number above zero"):
        DistillKLDivLoss(teacher_temperature=-1)
    with pytest.raises(DataError, match="labels must be a floating point tensor with one score for each of 1 pairs"):
        CosineSimilarityLoss()(torch.ones(2, 2), torch.tensor([[0, 1]]), torch.tensor([1]), torch.zeros(2).long())
