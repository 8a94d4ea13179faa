"""Losses against a memory, block by block, equal the same losses over whole matrices."""

import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from simtrain.losses import (
    CircleLoss,
    Distance,
    FastAPLoss,
    GroupContrastiveLoss,
    MultiSimilarityLoss,
    NTXentLoss,
    OnlineContrastiveLoss,
    SupConLoss,
    TripletLoss,
    distance_matrix,
    memory_blocks,
    similarity_matrix,
)
from simtrain.losses.circle import circle_terms
from simtrain.losses.fast_ap import fast_average_precision
from simtrain.losses.group_masks import batch_masks, memory_masks
from simtrain.losses.log_sums import masked_mean
from simtrain.losses.memory_rows import MemoryRows
from simtrain.losses.mining import farthest_index, nearest_index
from simtrain.losses.multi_similarity import informative_pairs, multi_similarity_terms
from simtrain.losses.ntxent import ntxent_terms
from simtrain.losses.row_terms import entries_above, row_maximum, row_minimum
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


def circle(loss, anchors, candidates, positive, negative):
    terms = circle_terms(
        similarity_matrix(anchors, candidates), positive, negative, margin=loss.margin, scale_factor=loss.scale_factor
    )
    return masked_mean(terms, positive.any(dim=1) & negative.any(dim=1))


def fast_ap(loss, anchors, candidates, positive, negative):
    precision = fast_average_precision(
        similarity_matrix(anchors, candidates), positive, negative, num_bins=loss.num_bins
    )
    return masked_mean(1 - precision, positive.any(dim=1))


def online(loss, anchors, candidates, positive, negative):
    d = distance_matrix(anchors, candidates, loss.distance)
    if loss.mining == "hard":
        (farthest, has_positive), (nearest, has_negative) = farthest_index(d, positive), nearest_index(d, negative)
        pull, push = d.gather(1, farthest.unsqueeze(1)).squeeze(1), d.gather(1, nearest.unsqueeze(1)).squeeze(1)
        positive, negative = has_positive, has_negative
    else:
        pull = push = d
    return masked_mean(pull.square() / 2, positive) + masked_mean((loss.margin - push).relu().square() / 2, negative)


LOSSES = [
    *(
        (OnlineContrastiveLoss(0.9, distance, mining), online)
        for distance in DISTANCES
        if distance != "dot"
        for mining in ("hard", "all")
    ),
    (CircleLoss(), circle),
    (CircleLoss(0.4, 16), circle),
    (FastAPLoss(), fast_ap),
    (FastAPLoss(3), fast_ap),
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


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("mining", ["semi_hard", "all"])
def test_few_and_many_positives_take_ways_that_agree(mining, soft, monkeypatch):
    """A pass for each positive, and sorting; many slices, and one."""
    anchors, remembered = draw(0, 6).requires_grad_(), draw(1, 40)
    groups, memory_groups = labels(0, 6, 3), labels(1, 40, 4)
    found = []
    for few, size in ((100, 1 << 18), (0, 1 << 18), (100, 90), (0, 90)):
        monkeypatch.setattr("simtrain.losses.row_terms._SLICE", size)
        for name in ("_FEW_TO_SORT", "_FEW_TO_FIND"):
            monkeypatch.setattr(f"simtrain.losses.triplet_terms.{name}", few)
        value = TripletLoss(0.1, mining=mining, soft=soft).memory_loss(anchors, groups, remembered, memory_groups)
        found.append((value, *torch.autograd.grad(value, anchors)))
    expected = triplet(
        TripletLoss(0.1, mining=mining, soft=soft), anchors, remembered, *memory_masks(groups, memory_groups)
    )
    for one in found:
        torch.testing.assert_close(one, (expected, *torch.autograd.grad(expected, anchors, retain_graph=True)))


def test_soft_triplets_of_far_distances_do_not_overflow():
    # exp(400) is beyond float32, and exp(3000) beyond float64: products of exponentials will not do.
    embeddings = torch.tensor([[0.0], [400.0], [3000.0], [1.0]], dtype=torch.float64, requires_grad=True)
    groups = torch.tensor([0, 0, 0, 1])
    loss = TripletLoss(distance="euclidean", mining="all", soft=True)
    expected = triplet(loss, embeddings, embeddings, *batch_masks(groups))
    value = loss(embeddings, groups)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*(torch.autograd.grad(one, embeddings)[0] for one in (value, expected)))
    torch.testing.assert_close(loss(embeddings.float(), groups), expected.float())


@pytest.mark.parametrize("mining", ["hard", "semi_hard", "all"])
def test_the_work_space_is_one_block_and_slices_of_it(mining, monkeypatch):
    monkeypatch.setattr(memory_blocks, "BLOCK", 16 * 2048)
    monkeypatch.setattr(memory_blocks, "_FEWEST_ROWS", 16)
    monkeypatch.setattr("simtrain.losses.row_terms._SLICE", 2048)
    anchors, remembered = draw(0, 64, 8).requires_grad_(), draw(1, 2048, 8)
    groups, memory_groups = labels(0, 64, 200), labels(1, 2048, 200)
    with LiveBytes() as live:
        TripletLoss(mining=mining).memory_loss(anchors, groups, remembered, memory_groups).backward()
    block = 16 * 2048 * 8
    assert block <= live.most < 3 * block


class LiveBytes(TorchDispatchMode):
    """Notes the most bytes that tensors made inside hold at a time."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.known = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided:
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key, size):
        self.known.discard(key)
        self.now -= size


def test_the_work_space_is_kept_for_the_next_step_and_lent_to_one_at_a_time():
    memory_blocks.release_space()
    kept = memory_blocks._KEPT
    search = memory_blocks.MemorySearch(
        MemoryRows(draw(1, 9).float(), labels(1, 9, 3), labels(2, 9, 9)), Distance("cosine"), 1.0, []
    )
    anchors = draw(0, 4).float()
    (first,) = [block.data_ptr() for _, _, block in memory_blocks.blocks_of(anchors, search)]
    (again,) = [block.data_ptr() for _, _, block in memory_blocks.blocks_of(anchors, search)]
    assert first == again == kept.tensor.data_ptr()
    for _, _, block in memory_blocks.blocks_of(anchors, search):
        (inner,) = [block.data_ptr() for _, _, block in memory_blocks.blocks_of(anchors[:2], search)]
        assert inner != block.data_ptr()
    (wide,) = [block.dtype for _, _, block in memory_blocks.blocks_of(anchors.double(), search)]
    assert wide == torch.float64
    memory_blocks.release_space()
    assert kept.tensor is None


def test_a_loss_in_inference_mode_leaves_no_space_that_training_could_not_use():
    memory_blocks.release_space()
    batch = draw(0, 4).float(), labels(0, 4, 2), draw(1, 9).float(), labels(1, 9, 2)
    with torch.inference_mode():
        SupConLoss().memory_loss(*batch)
    anchors = batch[0].clone().requires_grad_()
    SupConLoss().memory_loss(anchors, *batch[1:]).backward()
    assert anchors.grad.abs().sum() > 0


@pytest.mark.parametrize("columns", [5, 640, 700])
def test_row_maximum_and_minimum_equal_torchs(columns):
    block = draw(0, 7, columns)
    block[0, -1] = 9  # beyond the last whole fold of 700
    torch.testing.assert_close(row_minimum(block), tuple(block.min(dim=1)))
    values, places = row_maximum(block)
    torch.testing.assert_close((values, places), tuple(block.max(dim=1)))
    limits = values - 1e-3
    found = entries_above(block, limits)
    assert found is not None or columns == 5
    if found is not None:
        assert torch.stack(found, dim=1).tolist() == (block > limits.unsqueeze(1)).nonzero().tolist()  # row by row
