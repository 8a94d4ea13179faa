import pytest
import torch
from pytorch_metric_learning import distances as pml_distances
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners
from pytorch_metric_learning import reducers as pml_reducers
from torch.nn.functional import relu, softplus

from simtrain import registry
from simtrain.errors import ConfigError
from simtrain.losses import (
    Distance,
    DistanceWeightedMiner,
    EasyPositiveMiner,
    GroupContrastiveLoss,
    HardestMiner,
    MultiSimilarityMiner,
    SemiHardMiner,
    TripletLoss,
    distance_matrix,
    pair_distances,
)
from simtrain.losses.mined_indices import as_pairs, as_triplets
from tests.losses.test_triplet import LargestTensor

MINERS = [HardestMiner(), SemiHardMiner(), EasyPositiveMiner(), DistanceWeightedMiner(), MultiSimilarityMiner()]
IDS = [type(miner).__name__ for miner in MINERS]


def batch(seed=0, n=24, n_groups=5, dim=6):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    return embeddings, torch.randint(n_groups, (n,), generator=generator)


def rows(indices):
    return sorted(zip(*(one.tolist() for one in indices), strict=True))


def cosine():
    return pml_distances.CosineSimilarity()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("miner", "peer"),
    [
        (HardestMiner(), lambda: pml_miners.BatchHardMiner(distance=cosine())),
        (
            EasyPositiveMiner(),
            lambda: pml_miners.BatchEasyHardMiner(pos_strategy="easy", neg_strategy="semihard", distance=cosine()),
        ),
        (
            EasyPositiveMiner("hard"),
            lambda: pml_miners.BatchEasyHardMiner(pos_strategy="easy", neg_strategy="hard", distance=cosine()),
        ),
    ],
)
def test_triplets_are_pytorch_metric_learnings(miner, peer, seed):
    embeddings, groups = batch(seed)
    expected = peer()(embeddings, groups)
    # It calls a triplet (anchor, positive, anchor, negative) where it mines one for each anchor.
    assert rows(miner(embeddings, groups)) == rows(expected if len(expected) == 3 else [*expected[:2], expected[3]])


@pytest.mark.parametrize("seed", range(4))
def test_multi_similarity_pairs_are_pytorch_metric_learnings(seed):
    embeddings, groups = batch(seed)
    mined, expected = (
        MultiSimilarityMiner(0.1)(embeddings, groups),
        pml_miners.MultiSimilarityMiner(0.1)(embeddings, groups),
    )
    assert rows(mined[:2]) == rows(expected[:2])
    assert rows(mined[2:]) == rows(expected[2:])


@pytest.mark.parametrize("seed", range(4))
def test_semi_hard_negatives_by_brute_force(seed):
    embeddings, groups = batch(seed)
    d, expected = distance_matrix(embeddings, embeddings), []
    for a in range(24):
        for p in range(24):
            if p != a and groups[p] == groups[a]:
                beyond = [(d[a, n], n) for n in range(24) if groups[n] != groups[a] and d[a, n] > d[a, p]]
                expected += [(a, p, min(beyond)[1])] if beyond else []
    assert rows(SemiHardMiner()(embeddings, groups)) == sorted(expected)


@pytest.mark.slow
def test_distances_are_drawn_by_one_over_their_density():
    torch.manual_seed(0)
    embeddings = torch.nn.functional.normalize(torch.randn(40, 4))
    groups = torch.tensor([0, 0, *range(1, 39)])
    miner = DistanceWeightedMiner(cutoff=0.5, farthest=1.4)
    drawn = torch.zeros(40)
    for _ in range(4000):
        anchors, positives, negatives = miner(embeddings, groups)
        assert anchors.tolist() == [0, 1]
        assert positives.tolist() == [1, 0]
        drawn[negatives[0]] += 1
    d = torch.cdist(embeddings[:1], embeddings)[0]
    clipped = d.clamp(min=0.5)
    expected = 1 / (clipped**2 * (1 - clipped**2 / 4) ** 0.5)  # q(d) ~ d^(n-2) (1 - d^2/4)^((n-3)/2), n = 4
    expected[(d >= 1.4) | (torch.arange(40) < 2)] = 0
    expected /= expected.sum()
    assert (drawn[expected == 0] == 0).all()
    assert (drawn / 4000 - expected).abs().max() < 0.04


@pytest.mark.parametrize("miner", MINERS, ids=IDS)
@pytest.mark.parametrize("groups", [[], [1], [1, 1, 1], [1, 2, 3]])
def test_without_triplets_nothing_is_mined_and_the_loss_is_zero(miner, groups):
    embeddings = torch.randn(len(groups), 3, requires_grad=True)
    for loss in (TripletLoss(miner=miner), GroupContrastiveLoss(miner=miner)):
        value = loss(embeddings, torch.tensor(groups, dtype=torch.long))
        assert value == 0 or isinstance(loss, GroupContrastiveLoss)
        assert torch.autograd.grad(value, embeddings)[0].isfinite().all()


@pytest.mark.parametrize("miner", MINERS, ids=IDS)
def test_a_collapsed_batch_has_finite_gradients(miner):
    embeddings = torch.ones(6, 3, requires_grad=True)
    for loss in (TripletLoss(miner=miner), GroupContrastiveLoss(miner=miner)):
        value = loss(embeddings, torch.tensor([0, 0, 1, 1, 2, 2]))
        assert torch.autograd.grad(value, embeddings)[0].isfinite().all()


def test_hardest_triplets_give_the_hard_triplet_loss():
    embeddings, groups = batch()
    embeddings.requires_grad_()
    values = TripletLoss(0.4)(embeddings, groups), TripletLoss(0.4, miner=HardestMiner())(embeddings, groups)
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value, embeddings)[0] for value in values))


@pytest.mark.parametrize("name", ["MultiSimilarityMiner", "BatchHardMiner", "TripletMarginMiner"])
def test_miners_of_pytorch_metric_learning_fit_our_losses(name):
    embeddings, groups = batch(n=12)
    config = {"type": f"pml.{name}"}
    miner = getattr(pml_miners, name)()
    contrastive = pml_losses.ContrastiveLoss(0, 0.5, distance=pml_distances.LpDistance())
    indices = as_pairs(miner(embeddings, groups))
    value = GroupContrastiveLoss(negative_margin=0.5, distance="euclidean", miner=config)(unit(embeddings), groups)
    torch.testing.assert_close(value, contrastive(embeddings, groups, indices), rtol=1e-6, atol=1e-6)
    triplet = pml_losses.TripletMarginLoss(0.3, distance=pml_distances.LpDistance(), reducer=pml_reducers.MeanReducer())
    value = TripletLoss(0.3, "euclidean", miner=config)(unit(embeddings), groups)
    expected = triplet(embeddings, groups, as_triplets(miner(embeddings, groups)))
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)


def unit(embeddings):
    return torch.nn.functional.normalize(embeddings)


@pytest.mark.parametrize("miner", MINERS, ids=IDS)
def test_our_miners_fit_losses_of_pytorch_metric_learning(miner):
    embeddings, groups = batch()
    assert pml_losses.TripletMarginLoss()(embeddings, groups, miner(embeddings, groups)).isfinite()


@pytest.mark.parametrize("kind", [TripletLoss, GroupContrastiveLoss])
@pytest.mark.parametrize("miner", [*MINERS, {"type": "pml.MultiSimilarityMiner", "epsilon": 0.2}])
def test_a_config_makes_an_equal_loss(kind, miner):
    loss = kind(miner=miner)
    config = {"type": kind.__name__, **loss.get_config_dict()}
    twin = registry.losses.build(config)
    assert twin.get_config_dict() == loss.get_config_dict()
    assert not twin.supports_memory


def test_what_cannot_be_described_or_is_no_miner_is_refused(without_type_checks):
    with pytest.raises(
        ConfigError, match="the settings of a BatchHardMiner that was passed as an object are not known"
    ):
        TripletLoss(miner=pml_miners.BatchHardMiner()).get_config_dict()
    with pytest.raises(ConfigError, match="TripletLoss: miner must be a miner or its config"):
        TripletLoss(miner="hard")
    with pytest.raises(ConfigError, match="did you mean 'HardestMiner'"):
        TripletLoss(miner={"type": "HardestMinr"})


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("distance", [distance.value for distance in Distance])
def test_pairs_give_the_mean_over_their_triplets(distance, soft):
    embeddings, groups = batch()
    embeddings.requires_grad_()
    miner = MultiSimilarityMiner(0.3, distance)
    anchors, positives, negatives = as_triplets(miner(embeddings, groups))
    difference = pair_distances(embeddings[anchors], embeddings[positives], distance)
    difference = difference - pair_distances(embeddings[anchors], embeddings[negatives], distance)
    penalty = softplus(difference) if soft else relu(difference + 0.2)
    loss = TripletLoss(0.2, distance, soft=soft, miner=miner)
    value = loss(embeddings, groups)
    torch.testing.assert_close(value, penalty.mean(), rtol=1e-8, atol=1e-8)
    gradients = (torch.autograd.grad(one, embeddings)[0] for one in (value, penalty.mean()))
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)
    assert loss.figures()["n_active"] == (penalty > 0).sum()


@pytest.mark.parametrize("groups", [2, 16])
@pytest.mark.parametrize("miner", MINERS, ids=IDS)
def test_mined_losses_need_memory_of_the_order_of_the_distances(miner, groups):
    embeddings = batch(n=64, dim=48)[0].requires_grad_()
    for loss in (TripletLoss(miner=miner), GroupContrastiveLoss(miner=miner)):
        with LargestTensor() as largest:
            loss(embeddings, torch.arange(64) % groups).backward()
        assert 64 * 64 <= largest.numel <= 2 * 64 * 64


def test_pairs_that_come_twice_count_twice():
    embeddings, groups = batch(n=6, n_groups=2)
    first, positives, second, negatives = MultiSimilarityMiner(3.0)(embeddings, groups)
    twice = first, positives, torch.cat([second, second[:2]]), torch.cat([negatives, negatives[:2]])
    triplets = TripletLoss().mined_loss(embeddings, as_triplets(twice))
    torch.testing.assert_close(TripletLoss().mined_loss(embeddings, twice), triplets)


def test_the_nearest_negatives_and_no_others_are_drawn_where_the_rest_is_too_far():
    points = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0, 0], [1, 0.1, 0], [1, 0.9, 0], [-1, 0, 0], [-1, 0, 1]])
    )
    for _ in range(20):
        anchors, positives, negatives = DistanceWeightedMiner()(points, torch.tensor([0, 0, 1, 2, 3]))
        assert (anchors.tolist(), positives.tolist(), negatives.tolist()) == ([0, 1], [1, 0], [2, 2])
