"""What losses note of themselves: on separated data nothing is active, elsewhere what has a loss other than zero."""

import pytest
import torch

from simtrain import registry
from simtrain.losses import (
    ArcFaceLoss,
    CenterLoss,
    CircleLoss,
    CombinedLoss,
    ContrastiveLoss,
    CoSENTLoss,
    CosFaceLoss,
    CosineSimilarityLoss,
    DistillKLDivLoss,
    FastAPLoss,
    GroupContrastiveLoss,
    MarginMSELoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
    MultiSimilarityLoss,
    NTXentLoss,
    OnlineContrastiveLoss,
    ProxyAnchorLoss,
    ProxyNCALoss,
    SimilarityDistillationLoss,
    SoftmaxLoss,
    SupConLoss,
    TripletLoss,
)
from simtrain.losses.distances import Distance
from simtrain.losses.memory_rows import MemoryRows

# Two groups, each in one point, at opposite ends; temperatures so low that exponentials of the distance are nothing.
AXIS = torch.tensor([1.0, 0.0, 0.0, 0.0])
APART, GROUPS = torch.stack([AXIS, AXIS, -AXIS, -AXIS]), torch.tensor([0, 0, 1, 1])
CENTERS = torch.stack([AXIS, -AXIS])


def pml(name, **words):
    return registry.losses.build({"type": f"pml.{name}", **words})


def with_centers(loss):
    loss.weights.data = CENTERS.clone() if loss.weights.ndim == 2 else CENTERS.unsqueeze(1).clone()
    return loss


OF_GROUPS = {
    **{
        f"triplet {mining} {distance.value}": TripletLoss(0.5, distance, mining)
        for mining in ("hard", "semi_hard", "all")
        for distance in Distance
    },
    "triplet mined": TripletLoss(miner={"type": "HardestMiner"}),
    "triplet mined by pml": TripletLoss(miner={"type": "pml.BatchHardMiner"}),
    "circle": CircleLoss(scale_factor=2_560),
    "multi-similarity": MultiSimilarityLoss(),
    "nt-xent": NTXentLoss(0.01),
    "supcon": SupConLoss(0.01),
    "fast ap": FastAPLoss(),
    "online": OnlineContrastiveLoss(),
    "online, all": OnlineContrastiveLoss(mining="all"),
    "contrastive": GroupContrastiveLoss(),
    "contrastive mined": GroupContrastiveLoss(miner={"type": "MultiSimilarityMiner"}),
    "sum": CombinedLoss({"near": TripletLoss(), "many": SupConLoss(0.01)}),
    "prefixes": MatryoshkaLoss(TripletLoss(), [4, 2]),
    "arcface": with_centers(ArcFaceLoss(4, 2)),
    "arcface, centers": with_centers(ArcFaceLoss(4, 2, sub_centers=1)),
    "cosface": with_centers(CosFaceLoss(4, 2)),
    "softmax": with_centers(SoftmaxLoss(4, 2, temperature=0.01)),
    "proxy anchor": with_centers(ProxyAnchorLoss(4, 2, scale=300)),
    "proxy nca++": with_centers(ProxyNCALoss(4, 2, temperature=0.01, own_in_sum=True)),
    "center": with_centers(CenterLoss(4, 2)),
    "pml triplet": pml("TripletMarginLoss"),
    "pml triplet mined": pml("TripletMarginLoss", miner={"type": "pml.BatchHardMiner"}),
    "pml contrastive": pml("ContrastiveLoss"),
    "pml nt-xent": pml("NTXentLoss", temperature=0.01),
    "pml sum": pml("MultipleLosses", losses=[{"type": "pml.TripletMarginLoss"}, {"type": "pml.ContrastiveLoss"}]),
}
OF_PAIRS = {
    "ranking": MultipleNegativesRankingLoss(scale=200),
    "ranking, both ways": MultipleNegativesRankingLoss(scale=200, symmetric=True),
    "ranking, same side": MultipleNegativesRankingLoss(scale=200, same_side=True, symmetric=True),
    "contrastive": ContrastiveLoss(),
    "prefixes": MatryoshkaLoss(MultipleNegativesRankingLoss(scale=200), [4, 2]),
    "sum": CombinedLoss({"a": MultipleNegativesRankingLoss(scale=200), "b": ContrastiveLoss()}),
}


def assert_nothing_to_learn(loss, embeddings, *targets):
    embeddings = embeddings.clone().requires_grad_()
    value = loss(embeddings, *targets)
    (gradient,) = torch.autograd.grad(value, embeddings)
    assert value.item() == 0
    assert (gradient == 0).all()
    assert float(loss.figures()["n_active"]) == 0


@pytest.mark.parametrize("name", OF_GROUPS)
def test_on_separated_groups_nothing_is_active(name):
    loss = OF_GROUPS[name]
    scale = 10 if "dot" in name else 1
    assert_nothing_to_learn(loss, APART * scale, GROUPS)
    # The same points with the groups turned round have something to learn from.
    loss(APART[[0, 2, 1, 3]], GROUPS)
    assert float(loss.figures()["n_active"]) > 0


@pytest.mark.parametrize("name", OF_GROUPS)
def test_against_a_memory_of_separated_groups_nothing_is_active(name):
    loss = OF_GROUPS[name]
    if not loss.supports_memory:
        pytest.skip("has no memory form")
    scale = 10 if "dot" in name else 1
    memory = MemoryRows(CENTERS * scale, torch.tensor([0, 1]), torch.arange(2))
    items, embeddings = torch.arange(10, 14), (APART * scale).requires_grad_()
    value = loss.memory_rows_loss(embeddings, GROUPS, items, memory)
    assert value.item() == 0
    assert (torch.autograd.grad(value, embeddings)[0] == 0).all()
    assert float(loss.figures()["n_active"]) == 0
    loss.memory_rows_loss(APART, 1 - GROUPS, items, memory)
    assert float(loss.figures()["n_active"]) > 0


PAIRS, LABELS, SUBGROUPS = torch.tensor([[0, 2], [1, 3]]), torch.ones(2), torch.tensor([1, 2, 1, 2])


@pytest.mark.parametrize("name", OF_PAIRS)
def test_on_separated_pairs_nothing_is_active(name):
    loss, apart = OF_PAIRS[name], torch.stack([AXIS, -AXIS, AXIS, -AXIS])
    assert_nothing_to_learn(loss, apart, PAIRS, LABELS, SUBGROUPS)
    loss(apart[[0, 1, 3, 2]], PAIRS, LABELS, SUBGROUPS)
    assert float(loss.figures()["n_active"]) > 0
    memory = MemoryRows(apart, SUBGROUPS, torch.arange(4), torch.tensor([0, 0, 1, 1]))
    given = (PAIRS, LABELS, SUBGROUPS, torch.arange(10, 14))
    x = apart.clone().requires_grad_()
    value = loss.pair_memory_loss(x, *given, memory)
    assert value.item() == 0
    assert (torch.autograd.grad(value, x)[0] == 0).all()
    assert float(loss.figures()["n_active"]) == 0
    loss.pair_memory_loss(apart[[1, 0, 2, 3]], *given, memory)
    assert float(loss.figures()["n_active"]) > 0


def test_of_scores_that_are_met_nothing_is_active():
    x, pairs = torch.stack([AXIS, AXIS, -AXIS]), torch.tensor([[0, 1], [0, 2]])
    rows = torch.zeros(3, dtype=torch.long)
    for loss, met, missed in [
        (CosineSimilarityLoss(), [1.0, -1.0], [1.0, 0.0]),
        (CoSENTLoss(scale=200), [1.0, 0.0], [0.0, 1.0]),
        (MarginMSELoss(), [5.0, 3.0], [5.0, 5.0]),
        (DistillKLDivLoss(temperature=1.0), [1.0, -1.0], [-1.0, 1.0]),
    ]:
        assert_nothing_to_learn(loss, x, pairs, torch.tensor(met), rows)
        loss(x, pairs, torch.tensor(missed), rows)
        assert float(loss.figures()["n_active"]) > 0, loss
    for form in ("kl", "mse"):
        loss = SimilarityDistillationLoss(form=form, temperature=1.0, teacher_temperature=1.0)
        assert_nothing_to_learn(loss, x, 3 * x)
        loss(x, x[[0, 2, 1]])
        assert float(loss.figures()["n_active"]) > 0


def test_the_counts_are_of_terms_other_than_zero():
    # Item 4 is at its group's far end: it alone, and what is compared with it, costs anything.
    x = torch.cat([APART, -AXIS.unsqueeze(0)])
    groups = torch.tensor([0, 0, 1, 1, 0])
    expected = {
        "triplet hard cosine": 5,  # to group 0 it is the farthest, to group 1 the nearest
        "triplet all cosine": 2 + 2 + 4 + 1 + 1,
        "contrastive": 4 + 4,  # pulled to 0 and 1 and they to it, pushed from 2 and 3 and they from it
        "online": 3 + 3,
        "pml contrastive": 4 + 4,
        "cosface": 1,
        "center": 1,
    }
    counts = {}
    for name in expected:
        OF_GROUPS[name](x, groups)
        counts[name] = float(OF_GROUPS[name].figures()["n_active"])
    assert counts == expected


def test_a_sum_counts_its_parts_together():
    loss = CombinedLoss({"near": TripletLoss(), "many": MatryoshkaLoss(SupConLoss(), [4, 2])})
    loss(torch.randn(6, 4), torch.arange(6) // 2)
    figures = loss.figures()
    assert figures["many_n_active"] == figures["many_n_active_4"] + figures["many_n_active_2"] == 12
    assert figures["n_active"] == figures["near_n_active"] + figures["many_n_active"]


def test_regularizers_of_pml_are_not_counted():
    loss = pml("ContrastiveLoss", embedding_regularizer={"type": "pml.LpRegularizer"})
    assert loss(APART * 2, GROUPS) > 0
    assert loss.figures()["n_active"] == 0


def test_counting_leaves_no_hook_behind():
    loss = pml("ContrastiveLoss")
    loss(APART, GROUPS)
    assert all(not part._forward_pre_hooks for part in loss.modules())
