"""Every part of pytorch-metric-learning by registry name."""

import json
import subprocess
import sys

import pytest
import torch
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers

from simtrain import registry
from simtrain.errors import ConfigError, DataError, UnknownNameError
from simtrain.losses import GroupLoss, PytorchMetricLearningPairs, PytorchMetricLearningWrapper
from simtrain.losses.pml_names import pml_names
from simtrain.losses.pml_parts import build_pml
from tests.losses.pml_cases import N_GROUPS, NAMES, SIZE, config_of, draw, groups_of

pytestmark = [
    # The package's own: HistogramLoss indexes with a list, LargeMarginSoftmaxLoss gives tensors to scipy.
    pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]


def call(loss, embeddings, groups=None):
    groups = groups_of(len(embeddings)) if groups is None else groups
    torch.manual_seed(0)  # some draw triplets
    if isinstance(loss, GroupLoss):
        return loss(embeddings, groups)
    n = len(embeddings) // 2
    pairs = torch.arange(2 * n).view(2, n).T
    return loss(embeddings[: 2 * n], pairs, torch.ones(n), torch.zeros(2 * n, dtype=torch.long))


def test_the_names_are_those_of_the_package():
    found = pml_names()
    for kind, module in {
        "losses": losses,
        "miners": miners,
        "distances": distances,
        "reducers": reducers,
        "regularizers": regularizers,
    }.items():
        usable = {
            f"pml.{name}"
            for name, value in vars(module).items()
            if isinstance(value, type) and not name.startswith("Base") and "Mixin" not in name
        }
        usable -= {"pml.CrossBatchMemory", "pml.GenericPairLoss"}
        assert {name for name, its in found.items() if its == kind} == usable
    assert len(NAMES) >= 36
    assert set(NAMES) <= set(registry.losses.names())


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_runs_trains_and_comes_back_from_its_config(name):
    torch.manual_seed(0)
    loss = registry.losses.build(config_of(name))
    layer = torch.nn.Linear(SIZE, SIZE, dtype=torch.float64)
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    optimizer = torch.optim.SGD([*layer.parameters(), *loss.parameters()], lr=0.1)
    value = call(loss, layer(draw(0)))
    assert value.shape == ()
    assert value.isfinite()
    value.backward()
    assert layer.weight.grad.isfinite().all()
    assert layer.weight.grad.abs().sum() > 0
    optimizer.step()
    call(loss, layer(draw(0))).backward()  # and what it remembers of a step does not stand in the way of the next
    for key, parameter in loss.named_parameters():
        assert parameter.grad.isfinite().all()
        assert not torch.equal(parameter, before[key].to(parameter)), f"{key} is not trained"

    config = json.loads(json.dumps(loss.get_config_dict()))
    twin = registry.losses.build({"type": type(loss).__name__, **config})
    twin.double().load_state_dict(loss.state_dict())
    if name != "pml.DynamicSoftMarginLoss":  # its histogram of past batches is not in its state
        assert call(twin, draw(1)) == call(loss, draw(1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_peers_22_half_precision_is_computed_in_float32(name, dtype):
    torch.manual_seed(0)
    loss = registry.losses.build(config_of(name))
    x = draw(0, dtype=dtype).requires_grad_()
    value = call(loss, x)
    assert value.dtype == torch.float32
    (gradient,) = torch.autograd.grad(value, x)
    assert gradient.isfinite().all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        if name != "pml.DynamicSoftMarginLoss":
            assert call(loss, x) == call(loss, x.detach().float())


@pytest.mark.parametrize("name", [name for name, kind in pml_names().items() if kind == "miners"])
def test_every_miner_by_name(name):
    loss = registry.losses.build({"type": "pml.TripletMarginLoss", "miner": {"type": name}})
    twin = losses.TripletMarginLoss()
    miner = getattr(miners, name.removeprefix("pml."))()
    x, groups = draw(0), groups_of()
    torch.manual_seed(0)
    expected = twin(x, groups, miner(x, groups))
    assert call(loss, x) == expected


@pytest.mark.parametrize("name", [name for name, kind in pml_names().items() if kind in ("distances", "reducers")])
def test_every_distance_and_reducer_by_name(name):
    if name == "pml.DoNothingReducer":
        with pytest.raises(ConfigError, match=r"pml.DoNothingReducer gives no number to minimise; use another"):
            registry.losses.build({"type": "pml.ContrastiveLoss", "reducer": {"type": name}})
        return
    kind = pml_names()[name]
    words = {
        "pml.BatchedDistance": {"distance": {"type": "pml.LpDistance"}},
        "pml.ThresholdReducer": {"low": 0.0},
        "pml.ClassWeightedReducer": {"weights": [1.0, 2.0, 3.0, 4.0]},
        "pml.MultipleReducers": {"reducers": {"pos_loss": {"type": "pml.SumReducer"}}},
    }.get(name, {})
    part = {"type": name, **words}
    if name in ("pml.BatchedDistance", "pml.DivisorReducer"):  # for use within other parts
        assert type(build_pml(part, kind)).__name__ == name.removeprefix("pml.")
        return
    loss_name = "pml.NTXentLoss" if name == "pml.PerAnchorReducer" else "pml.ContrastiveLoss"
    loss = registry.losses.build({"type": loss_name, kind.removesuffix("s"): part})
    x = draw(0).requires_grad_()
    (gradient,) = torch.autograd.grad(call(loss, x), x)
    assert gradient.isfinite().all()
    assert type(getattr(loss.loss, kind.removesuffix("s"))).__name__ in (name.removeprefix("pml."), "MultipleReducers")


@pytest.mark.parametrize("name", [name for name, kind in pml_names().items() if kind == "regularizers"])
def test_every_regularizer_by_name(name):
    words = {"num_classes": 2, "centers_per_class": 2} if "Sparse" in name else {}
    word = "embedding_regularizer" if name in ("pml.LpRegularizer", "pml.ZeroMeanRegularizer") else "weight_regularizer"
    base = config_of("pml.ArcFaceLoss")
    loss = registry.losses.build({**base, word: {"type": name, **words}})
    plain = registry.losses.build(base)
    plain.load_state_dict(loss.state_dict(), strict=False)
    assert call(loss, draw(0)) != call(plain, draw(0))


def test_the_config_of_the_issue():
    config = {
        "type": "pml.CircleLoss",
        "m": 0.4,
        "distance": {"type": "pml.CosineSimilarity"},
        "miner": {"type": "pml.MultiSimilarityMiner"},
    }
    loss = registry.losses.build(config)
    x, groups = draw(0), groups_of()
    expected = losses.CircleLoss(m=0.4, distance=distances.CosineSimilarity())(
        x, groups, miners.MultiSimilarityMiner()(x, groups)
    )
    assert loss(x, groups) == expected


def test_objects_work_too():
    loss = PytorchMetricLearningWrapper(losses.TripletMarginLoss(margin=0.2), miners.BatchHardMiner())
    x, groups = draw(0), groups_of()
    assert loss(x, groups) == losses.TripletMarginLoss(margin=0.2)(x, groups, miners.BatchHardMiner()(x, groups))
    assert "TripletMarginLoss" in repr(loss)
    with pytest.raises(ConfigError, match="the loss TripletMarginLoss was passed as an object"):
        loss.get_config_dict()


DEGENERATE = {
    "no item": ([], torch.zeros(0, SIZE)),
    "one item": ([1], torch.ones(1, SIZE)),
    "one class": ([1] * 6, draw(0, 6)),
    "all classes different": ([0, 1, 2, 3], draw(1, 4)),
    "collapsed": ([0, 0, 1, 1, 2, 2], torch.ones(6, SIZE)),
    "duplicates": ([0, 0, 1, 1, 0, 1], draw(2, 3).repeat(2, 1)),
    "zeros": ([0, 0, 1, 1, 2, 2], torch.zeros(6, SIZE)),
    "one zero": ([0, 0, 1, 1, 2, 2], torch.cat([torch.zeros(1, SIZE).double(), draw(3, 5)])),
    "on two axes": ([0, 1, 0, 1], torch.eye(2, SIZE).repeat(2, 1)),
}


# The package's formulas are no numbers there, or break: seen by whoever drives the training.
NO_NUMBER = {
    ("pml.P2SGradLoss", "zeros"),
    ("pml.P2SGradLoss", "one zero"),
    ("pml.SignalToNoiseRatioContrastiveLoss", "one zero"),
    ("pml.TupletMarginLoss", "duplicates"),  # the angle of a cosine beyond 1
    ("pml.DynamicSoftMarginLoss", "duplicates"),
    ("pml.HistogramLoss", "collapsed"),
    ("pml.HistogramLoss", "duplicates"),
    ("pml.HistogramLoss", "on two axes"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_degenerate_batches_have_finite_gradients(name):
    torch.manual_seed(0)
    loss = registry.losses.build(config_of(name))
    for kind, (groups, embeddings) in DEGENERATE.items():
        if (name, kind) in NO_NUMBER:
            continue
        # float16 is the harder: it is computed in float32, and gradients have to fit into its range.
        for dtype, autocast in ((torch.float16, False), (torch.float32, kind in ("zeros", "duplicates"))):
            x = embeddings.clone().to(dtype).requires_grad_()
            loss.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                value = call(loss, x, torch.tensor(groups, dtype=torch.long))
            value.backward()
            assert value.isfinite(), kind
            assert x.grad is None or x.grad.isfinite().all(), kind
            assert all(p.grad is None or p.grad.isfinite().all() for p in loss.parameters()), kind


def test_a_nan_in_the_embeddings_is_not_hidden_by_mended_gradients():
    x, groups = draw(0).requires_grad_(), groups_of()
    spoilt = x.detach().clone()
    spoilt[0, 0] = torch.nan
    for name in ("pml.ContrastiveLoss", "pml.SupConLoss", "pml.TupletMarginLoss"):
        assert registry.losses.build(config_of(name))(spoilt, groups).isnan()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"type": "pml.CircelLoss"}, "unknown loss type 'pml.CircelLoss'; did you mean 'pml.CircleLoss'"),
        ({"type": "pml.CircleLoss", "mm": 1}, "pml.CircleLoss has no setting 'mm'; did you mean 'm'"),
        (
            {"type": "pml.CircleLoss", "distance": {"type": "pml.CosineSim"}},
            "no 'pml.CosineSim' among its distances; did you mean 'pml.CosineSimilarity'",
        ),
        (
            {"type": "pml.CircleLoss", "miner": {"type": "pml.LpDistance"}},
            r"no 'pml.LpDistance' among its miners \(it is one of its distances\)",
        ),
        ({"type": "pml.CircleLoss", "distance": {"type": "pml.LpDistance"}}, "refuses these settings"),
        ({"type": "pml.ArcFaceLoss", "num_classes": 3}, "refuses these settings .*embedding_size"),
        ({"type": "pml.SubCenterArcFaceLoss", "num_classes": 3}, "refuses these settings .*embedding_size"),
        ({"type": "pml.CircleLoss", "m": {"type": "pml.LpDistance"}}, "a setting that takes no part"),
        ({"type": "pml.VICRegLoss", "miner": {"type": "pml.BatchHardMiner"}}, "without a miner; leave miner out"),
        ({"type": "pml.CrossBatchMemory"}, "unknown loss type 'pml.CrossBatchMemory'"),
    ],
)
def test_wrong_configs_are_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        registry.losses.build(config)


def test_unknown_names_are_key_errors_as_elsewhere():
    with pytest.raises(UnknownNameError):
        registry.losses.get("pml.Nothing")
    assert "pml.Nothing" not in registry.losses
    assert "pml.CircleLoss" in registry.losses


def test_groups_and_pairs_are_told_apart():
    with pytest.raises(ConfigError, match=r"pml.VICRegLoss compares two views of each item and takes no groups"):
        PytorchMetricLearningWrapper({"type": "pml.VICRegLoss"})
    with pytest.raises(ConfigError, match="CircleLoss takes groups; use PytorchMetricLearningWrapper"):
        PytorchMetricLearningPairs({"type": "pml.CircleLoss"})


def test_mismatches_are_left_out_of_two_views():
    loss = registry.losses.build({"type": "pml.VICRegLoss"})
    x, pairs = draw(0, 8), torch.arange(8).view(2, 4).T
    labels, subgroups = torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.zeros(8, dtype=torch.long)
    keep = [0, 2, 3]
    assert loss(x, pairs, labels, subgroups) == losses.VICRegLoss()(x[:4][keep], ref_emb=x[4:][keep])
    assert loss(x, pairs, labels * 0, subgroups) == 0


def test_groups_without_a_proxy_are_refused_in_training_and_left_out_in_evaluation():
    loss = registry.losses.build(config_of("pml.ProxyAnchorLoss"))
    assert loss.num_groups == N_GROUPS
    x = draw(0, 3)
    with pytest.raises(DataError, match=r"pml.ProxyAnchorLoss has class weights for .* got the group 4"):
        loss(x, torch.tensor([0, 4, 1]))
    loss.eval()
    assert loss(x, torch.tensor([0, 4, 1])) == loss(x[[0, 2]], torch.tensor([0, 1]))
    assert loss(x, torch.tensor([5, 4, 9])).isnan()


def test_peers_23_large_labels_stay_apart():
    loss = registry.losses.build({"type": "pml.TripletMarginLoss", "miner": {"type": "pml.BatchHardMiner"}})
    x, large = draw(0, 8), torch.tensor([16_777_216, 16_777_217] * 4)
    assert loss(x, large) == loss(x, large - 16_777_216)


def test_names_need_no_import_of_the_package():
    code = (
        "import sys; from simtrain import registry; names = registry.losses.names(); "
        "assert 'pml.CircleLoss' in names; registry.losses.check({'type': 'pml.CircleLoss', 'm': 1}); "
        "print('pytorch_metric_learning' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
