"""Losses against a memory, block by block, equal the same losses over whole matrices."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simtrain.losses import (
    Distance,
    GroupContrastiveLoss,
    MultiSimilarityLoss,
    NTXentLoss,
    SupConLoss,
    TripletLoss,
    distance_matrix,
    memory_blocks,
    similarity_matrix,
)
from simtrain.losses.group_masks import memory_masks
from simtrain.losses.log_sums import masked_mean
from simtrain.losses.memory_rows import MemoryRows
from simtrain.losses.multi_similarity import informative_pairs, multi_similarity_terms
from simtrain.losses.ntxent import ntxent_terms
from simtrain.losses.row_terms import entries_above, row_maximum
from simtrain.losses.supcon import supervised_contrastive_loss
from tests.losses.test_triplet import brute_force

DISTANCES = [distance.value for distance in Distance]


def contrastive(loss, anchors, candidates, positive, negative):
    d = distance_matrix(anchors, candidates, loss.distance)
    pull, push = (d - loss.positive_margin).relu(), (loss.negative_margin - d).relu()
    return masked_mean(pull, positive & (pull > 0)) + masked_mean(push, negative & (push > 0))


def multi_similarity(loss, anchors, candidates, positive, negative):
    s = similarity_matrix(anchors, candidates)
    if loss.epsilon is not None:
        positive, negative = informative_pairs(s, positive, negative, epsilon=loss.epsilon)
    return multi_similarity_terms(s, positive, negative, alpha=loss.alpha, beta=loss.beta, lambda_=loss.lambda_).mean()


def triplet(loss, anchors, candidates, positive, negative):
    return brute_force(anchors, candidates, positive, negative, loss.margin, loss.distance, loss.mining, loss.soft)


def supcon(loss, *batch):
    return supervised_contrastive_loss(*batch, temperature=loss.temperature)


def ntxent(loss, anchors, candidates, positive, negative):
    return masked_mean(ntxent_terms(similarity_matrix(anchors, candidates) / loss.temperature, negative), positive)


LOSSES = [
    *((GroupContrastiveLoss(0.1, 0.9, distance), contrastive) for distance in DISTANCES if distance != "dot"),
    *(
        (TripletLoss(0.3, distance, mining), triplet)
        for distance in DISTANCES
        for mining in ("hard", "semi_hard", "all")
    ),
    *((TripletLoss(0.3, mining=mining, soft=True), triplet) for mining in ("hard", "semi_hard", "all")),
    (SupConLoss(0.2), supcon),
    (NTXentLoss(0.2), ntxent),
    (MultiSimilarityLoss(), multi_similarity),
    (MultiSimilarityLoss(beta=4, lambda_=0.5), multi_similarity),
    (MultiSimilarityLoss(epsilon=None), multi_similarity),
    (MultiSimilarityLoss(epsilon=3.0), multi_similarity),
]
IDS = [f"{type(loss).__name__}-{n}" for n, (loss, _) in enumerate(LOSSES)]


def draw(seed, n, dim=3):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(seed, n, most):
    return torch.randint(most, (n,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("loss", "reference"), LOSSES, ids=IDS)
@settings(max_examples=3, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    n=st.integers(1, 4),
    m=st.integers(1, 6),
    n_groups=st.integers(1, 4),
    with_norms=st.booleans(),
    degenerate=st.sampled_from(["", "zeros", "collapsed", "duplicates"]),
)
def test_a_memory_equals_the_whole_matrix(loss, reference, seed, n, m, n_groups, with_norms, degenerate):
    anchors, remembered = draw(seed, n), draw(seed + 1, m)
    if degenerate == "zeros":
        remembered[::2] = 0
    if degenerate == "collapsed":
        anchors[:], remembered[:] = anchors[0].clone(), anchors[0].clone() if loss.distance == "cosine" else 1.0
    if degenerate == "duplicates":
        remembered[m // 2 :] = remembered[: m - m // 2].clone()
    anchors.requires_grad_()
    groups, memory_groups = labels(seed, n, n_groups), labels(seed + 1, m, n_groups)
    items, memory_items = labels(seed + 2, n, 12), labels(seed + 3, m, 12)
    own = items.unsqueeze(1) == memory_items
    expected = reference(loss, anchors, remembered, *memory_masks(groups, memory_groups, own))
    norms = remembered.norm(dim=1) if with_norms else None
    rows = MemoryRows(remembered, memory_groups, memory_items, norms=norms)
    whole = memory_blocks.BLOCK, memory_blocks._FEWEST_ROWS
    memory_blocks.BLOCK, memory_blocks._FEWEST_ROWS = 2 * m, 1  # two anchors a block
    try:
        values = [
            loss.memory_rows_loss(anchors, groups, items, rows),
            loss.memory_loss(anchors, groups, remembered, memory_groups, own),
        ]
    finally:
        memory_blocks.BLOCK, memory_blocks._FEWEST_ROWS = whole
    wanted = torch.autograd.grad(expected, anchors, allow_unused=True)[0]
    for value in values:
        if degenerate != "collapsed":  # there, rounding chooses among what is equally far
            torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-8)
        (gradient,) = torch.autograd.grad(value, anchors)
        assert gradient.isfinite().all()
        if not degenerate:
            torch.testing.assert_close(gradient, wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "reference"), LOSSES, ids=IDS)
def test_long_memories_take_the_same_way_by_lists_and_by_blocks(loss, reference):
    """A memory of many folds, in which some losses list what is active and others do not."""
    anchors, remembered = draw(0, 5, 4).requires_grad_(), draw(1, 300, 4)
    groups, memory_groups = labels(0, 5, 9), labels(1, 300, 9)
    expected = reference(loss, anchors, remembered, *memory_masks(groups, memory_groups))
    value = loss.memory_rows_loss(
        anchors, groups, torch.arange(5), MemoryRows(remembered, memory_groups, torch.arange(300) + 5)
    )
    torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-8)
    gradients = (torch.autograd.grad(one, anchors)[0] for one in (value, expected))
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", [SupConLoss, NTXentLoss])
def test_a_learnt_temperature_has_its_gradient_through_the_memory(kind):
    loss = kind(temperature={"initial": 0.2}).double()
    anchors, remembered, groups = draw(0, 5).requires_grad_(), draw(1, 9), labels(0, 5, 3)
    memory_groups = labels(1, 9, 3)
    temperature = loss.temperature.log_temperature
    masks = memory_masks(groups, memory_groups)
    wanted = torch.autograd.grad(loss.compare(anchors, remembered, *masks), temperature)
    value = loss.memory_loss(anchors, groups, remembered, memory_groups)
    torch.testing.assert_close(torch.autograd.grad(value, temperature), wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("loss", "reference"), LOSSES, ids=IDS)
def test_half_precision_memories_are_widened_tile_by_tile(loss, reference, dtype, monkeypatch):
    monkeypatch.setattr("simtrain.losses.memory_rows._TILE", 7)
    anchors, remembered = draw(0, 6).float().requires_grad_(), draw(1, 40).to(dtype)
    groups, memory_groups = labels(0, 6, 4), labels(1, 40, 4)
    value = loss.memory_loss(anchors, groups, remembered, memory_groups)
    expected = loss.memory_loss(anchors, groups, remembered.float(), memory_groups)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    gradients = (torch.autograd.grad(one, anchors)[0] for one in (value, expected))
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(
            loss.memory_loss(anchors, groups, remembered, memory_groups), expected, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(("loss", "_"), LOSSES, ids=IDS)
def test_without_anything_to_learn_from_loss_and_gradient_are_zero(loss, _):
    anchors = draw(0, 4).requires_grad_()
    same = MemoryRows(anchors.detach().clone(), torch.arange(4), torch.arange(4))
    value = loss.memory_rows_loss(
        anchors,
        torch.arange(4),
        torch.arange(4),
        MemoryRows(*(x[:0] for x in (same.embeddings, same.groups, same.items))),
    )
    assert value.item() == 0
    only_own = MemoryRows(same.embeddings[:1], torch.tensor([0]), torch.tensor([0]))
    value = loss.memory_rows_loss(anchors[:1], torch.tensor([0]), torch.tensor([0]), only_own)
    assert value.item() == 0
    assert (torch.autograd.grad(value, anchors)[0] == 0).all()


@pytest.mark.parametrize(("loss", "_"), LOSSES, ids=IDS)
def test_a_nan_is_seen(loss, _):
    anchors = draw(0, 4)
    anchors[0, 0] = torch.nan
    groups = torch.tensor([0, 0, 1, 1])
    assert loss.memory_loss(anchors, groups, draw(1, 6), labels(1, 6, 2)).isnan()


@pytest.mark.parametrize("columns", [5, 640, 700])
def test_row_maximum_equals_torchs(columns):
    block = draw(0, 7, columns)
    values, places = row_maximum(block)
    torch.testing.assert_close((values, places), tuple(block.max(dim=1)))
    limits = values - 1e-3
    found = entries_above(block, limits)
    assert found is not None or columns == 5
    if found is not None:
        assert sorted(map(list, zip(*(x.tolist() for x in found), strict=True))) == (
            (block > limits.unsqueeze(1)).nonzero().tolist()
        )
