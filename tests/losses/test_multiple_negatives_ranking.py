import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning import losses as pml_losses
from torch.nn.functional import cosine_similarity

from simtrain.errors import ConfigError
from simtrain.losses import Distance, MultipleNegativesRankingLoss, pair_distances
from simtrain.losses.multiple_negatives_ranking import ranking_loss

NAMES = [distance.value for distance in Distance]


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_integers(seed: int, high: int, *shape: int) -> torch.Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def as_loaded(n: int) -> torch.Tensor:
    return torch.arange(2 * n).view(2, n).T


def zeros(n: int) -> torch.Tensor:
    return torch.zeros(n, dtype=torch.long)


def similarity(a, b, name):
    if name == "cosine":
        return cosine_similarity(a, b, dim=0)
    return -pair_distances(a.unsqueeze(0), b.unsqueeze(0), name)[0]


def is_negative(query, document, partner, labelled, subgroups):
    """The rules in words, for one query row and one document row."""
    if document in (query, partner) or any((query, document) == pair for pair, y in labelled if y > 0):
        return False
    if any((query, document) == pair for pair, _ in labelled):
        return True
    return subgroups[query] == 0 or subgroups[query] != subgroups[document]


def brute_force(embeddings, pairs, labels, subgroups, scale, distance):
    labelled = [((q, d), y.item()) for (q, d), y in zip(pairs.tolist(), labels, strict=True)]
    total, weight = (embeddings * 0).sum(), 0.0
    for (query, partner), y in labelled:
        if y <= 0:
            continue
        documents = {d for (_, d), _ in labelled if is_negative(query, d, partner, labelled, subgroups)}
        scores = {d: scale * similarity(embeddings[query], embeddings[d], distance) for d in {partner, *documents}}
        total = total - y * torch.stack([scores[partner] - s for s in scores.values()]).neg().exp().sum().log().neg()
        weight += y
    return total / weight if weight else total


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 6),
    n_subgroups=st.integers(1, 4),
    labelling=st.sampled_from(["ones", "zeros and ones", "grades"]),
    loaded=st.booleans(),
    symmetric=st.booleans(),
    distance=st.sampled_from(NAMES),
)
def test_equals_the_papers_formula(seed, n, n_subgroups, labelling, loaded, symmetric, distance):
    embeddings = draw(seed, 2 * n, 4).requires_grad_()
    pairs = as_loaded(n)
    if not loaded:  # rows shared by pairs, rows that are a query here and a document there
        pairs = draw_integers(seed + 1, 2 * n, n + 2, 2)
        pairs = torch.where((pairs[:, :1] == pairs[:, 1:]).expand(-1, 2), as_loaded(n)[0], pairs)
    labels = draw(seed + 2, len(pairs)).sigmoid().round(decimals=1)
    labels = {"ones": torch.ones_like(labels), "zeros and ones": labels.round(), "grades": labels}[labelling]
    subgroups = draw_integers(seed + 3, n_subgroups, 2 * n)
    value = MultipleNegativesRankingLoss(3.0, symmetric, distance)(embeddings, pairs, labels, subgroups)
    expected = brute_force(embeddings, pairs, labels, subgroups, 3.0, distance)
    if symmetric:
        expected = (expected + brute_force(embeddings, pairs.flip(1), labels, subgroups, 3.0, distance)) / 2
    torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-8)
    (got,), (wanted,) = torch.autograd.grad(value, embeddings), torch.autograd.grad(expected, embeddings)
    torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("symmetric", [False, True])
def test_plain_pairs_are_a_cross_entropy(symmetric):
    queries, documents = draw(0, 8, 5), draw(1, 8, 5)
    logits = 20 * cosine_similarity(queries.unsqueeze(1), documents, dim=2)
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(8))
    if symmetric:
        expected = (expected + torch.nn.functional.cross_entropy(logits.T, torch.arange(8))) / 2
    loss = MultipleNegativesRankingLoss(symmetric=symmetric)
    value = loss(torch.cat([queries, documents]), as_loaded(8), torch.ones(8), zeros(16))
    torch.testing.assert_close(value, expected)


def test_equals_ntxent_of_pytorch_metric_learning():
    queries, documents, ids = draw(0, 8, 5), draw(1, 8, 5), torch.arange(8)
    expected = pml_losses.NTXentLoss(temperature=0.05)(queries, ids, ref_emb=documents, ref_labels=ids.clone())
    value = MultipleNegativesRankingLoss(20)(torch.cat([queries, documents]), as_loaded(8), torch.ones(8), zeros(16))
    torch.testing.assert_close(value, expected)


def test_same_side_equals_ntxent_over_all_texts_of_the_batch():
    embeddings, ids = draw(0, 16, 5).requires_grad_(), torch.arange(8).repeat(2)
    expected = pml_losses.NTXentLoss(temperature=0.05)(embeddings, ids)
    loss = MultipleNegativesRankingLoss(20, symmetric=True, same_side=True)
    value = loss(embeddings, as_loaded(8), torch.ones(8), zeros(16))
    torch.testing.assert_close(value, expected)
    (got,), (wanted,) = torch.autograd.grad(value, embeddings), torch.autograd.grad(expected, embeddings)
    torch.testing.assert_close(got, wanted)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 6), n_subgroups=st.integers(1, 4), symmetric=st.booleans())
def test_same_side_never_takes_its_own_subgroup_as_negative(seed, n, n_subgroups, symmetric):
    embeddings, pairs = draw(seed, 2 * n, 4).requires_grad_(), as_loaded(n)
    subgroups = draw_integers(seed + 1, n_subgroups, n).repeat(2)
    loss = MultipleNegativesRankingLoss(3.0, symmetric, same_side=True)
    value = loss(embeddings, pairs, torch.ones(n), subgroups)
    total = (embeddings * 0).sum()
    for query, document in [*pairs.tolist(), *(pairs.flip(1).tolist() if symmetric else [])]:
        own = {query, document}
        allowed = [row for row in range(2 * n) if subgroups[row] == 0 or subgroups[row] != subgroups[query]]
        side = set(range(2 * n)) - own
        scores = [3 * similarity(embeddings[query], embeddings[row], "cosine") for row in side if row in allowed]
        positive = 3 * similarity(embeddings[query], embeddings[document], "cosine")
        total = total + torch.stack([positive, *scores]).logsumexp(0) - positive
    torch.testing.assert_close(value, total / (n * (2 if symmetric else 1)))


def test_gradcheck():
    subgroups, labels = torch.tensor([1, 1, 0, 2, 1, 1, 0, 2]), torch.tensor([1.0, 0.0, 1.0, 0.5])
    loss = MultipleNegativesRankingLoss(5, symmetric=True)
    embeddings = draw(3, 8, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, as_loaded(4), labels, subgroups), (embeddings,))


def test_subgroup_0_means_none_given():
    embeddings, pairs, labels = draw(0, 8, 3), as_loaded(4), torch.ones(4)
    loss = MultipleNegativesRankingLoss()
    none_given = loss(embeddings, pairs, labels, zeros(8))
    torch.testing.assert_close(none_given, loss(embeddings, pairs, labels, torch.arange(1, 5).repeat(2)))
    assert loss(embeddings, pairs, labels, torch.ones(8, dtype=torch.long)) == 0  # all of one subgroup: no negative


def test_a_known_mismatch_is_a_negative_for_all_but_no_query():
    queries, documents = draw(0, 3, 4), draw(1, 3, 4)
    labels = torch.tensor([1.0, 1.0, 0.0])
    value = MultipleNegativesRankingLoss()(torch.cat([queries, documents]), as_loaded(3), labels, zeros(6))
    logits = 20 * cosine_similarity(queries.unsqueeze(1), documents, dim=2)
    torch.testing.assert_close(value, torch.nn.functional.cross_entropy(logits[:2], torch.arange(2)))


def test_mismatches_of_one_query_row_count_in_spite_of_their_subgroup():
    # One query row with its document and a mined mismatch, all of subgroup 5.
    embeddings, subgroups = draw(0, 3, 4), torch.full((3,), 5)
    value = MultipleNegativesRankingLoss(1.0)(
        embeddings, torch.tensor([[0, 1], [0, 2]]), torch.tensor([1.0, 0.0]), subgroups
    )
    scores = cosine_similarity(embeddings[:1], embeddings[1:])
    torch.testing.assert_close(value, -scores.log_softmax(dim=0)[0])


def test_a_document_of_two_pairs_is_no_ones_negative_twice():
    embeddings, pairs = draw(0, 5, 4), torch.tensor([[0, 3], [1, 3], [2, 4]])
    value = MultipleNegativesRankingLoss(1.0)(embeddings, pairs, torch.ones(3), zeros(5))
    logits = cosine_similarity(embeddings[:3].unsqueeze(1), embeddings[3:], dim=2)
    torch.testing.assert_close(value, torch.nn.functional.cross_entropy(logits, torch.tensor([0, 0, 1])))


def test_further_candidates_are_negatives_for_all():
    embeddings = draw(0, 6, 4)
    value = ranking_loss(embeddings, torch.tensor([0, 1]), torch.tensor([2, 3, 4, 5]), torch.ones(2), zeros(6))
    logits = 20 * cosine_similarity(embeddings[:2].unsqueeze(1), embeddings[2:], dim=2)
    torch.testing.assert_close(value, torch.nn.functional.cross_entropy(logits, torch.arange(2)))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("n", [0, 1])
def test_without_negatives_loss_and_gradient_are_zero(n, symmetric):
    embeddings = torch.randn(2 * n, 3, requires_grad=True)
    value = MultipleNegativesRankingLoss(symmetric=symmetric)(embeddings, as_loaded(n), torch.ones(n), zeros(2 * n))
    assert value.item() == 0
    assert (torch.autograd.grad(value, embeddings)[0] == 0).all()


def test_mismatches_alone_have_a_loss_of_zero():
    embeddings = torch.randn(6, 3, requires_grad=True)
    value = MultipleNegativesRankingLoss()(embeddings, as_loaded(3), torch.zeros(3), zeros(6))
    assert value.item() == 0
    assert (torch.autograd.grad(value, embeddings)[0] == 0).all()


@pytest.mark.parametrize("distance", NAMES)
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_a_collapsed_batch_has_a_finite_gradient(distance, fill):
    embeddings = torch.full((6, 4), fill, requires_grad=True)
    value = MultipleNegativesRankingLoss(distance=distance)(embeddings, as_loaded(3), torch.ones(3), zeros(6))
    torch.testing.assert_close(value, torch.tensor(3.0).log())
    assert torch.autograd.grad(value, embeddings)[0].isfinite().all()


def test_peers_11_the_config_can_be_read_again_and_again():
    loss = MultipleNegativesRankingLoss(scale=5)
    config = {"scale": 5.0, "symmetric": False, "distance": "cosine", "same_side": False, "temperature": None}
    assert loss.get_config_dict() == loss.get_config_dict() == config
    assert MultipleNegativesRankingLoss(**config).get_config_dict() == config


@pytest.mark.usefixtures("without_type_checks")
def test_a_scale_of_zero_is_refused():
    with pytest.raises(
        ConfigError, match="MultipleNegativesRankingLoss: scale must be a finite number above zero, got 0"
    ):
        MultipleNegativesRankingLoss(scale=0)
