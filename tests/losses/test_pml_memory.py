"""pytorch-metric-learning's losses against a memory."""

import numpy as np
import pytest
import torch
from pytorch_metric_learning import losses

from simtrain import registry
from simtrain.errors import ConfigError
from simtrain.losses import GroupLoss
from simtrain.losses.pml_indices import memory_pairs, without_own
from simtrain.losses.pml_names import pml_names
from simtrain.losses.pml_parts import build_pml
from tests.losses.pml_cases import NAMES, SIZE, config_of, draw, groups_of

pytestmark = [
    # The package's own: HistogramLoss indexes with a list, LargeMarginSoftmaxLoss gives tensors to scipy.
    pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]


SUPPORTED = [f"pml.{name}" for name in losses.CrossBatchMemory.supported_losses()]


def test_the_losses_that_take_a_memory():
    with_memory = [
        name
        for name in NAMES
        if isinstance(loss := registry.losses.build(config_of(name)), GroupLoss) and loss.supports_memory
    ]
    assert sorted(with_memory) == sorted(SUPPORTED)
    for name in ("pml.ArcFaceLoss", "pml.FastAPLoss"):
        x, groups = draw(0), groups_of()
        with pytest.raises(ConfigError, match="has no memory form"):
            registry.losses.build(config_of(name)).memory_loss(x, groups, x, groups)


@pytest.mark.parametrize("miner", [None, "pml.MultiSimilarityMiner", "pml.BatchHardMiner"])
@pytest.mark.parametrize("name", SUPPORTED)
def test_a_memory_equals_cross_batch_memory(name, miner):
    words = {"type": name} if name == "pml.MarginLoss" else config_of(name)
    if name in ("pml.TripletMarginLoss", "pml.MarginLoss"):
        words["triplets_per_anchor"] = "all"
    loss = registry.losses.build({**words, "miner": miner and {"type": miner}})
    bank = losses.CrossBatchMemory(
        build_pml(words, "losses"), SIZE, memory_size=20, miner=miner and build_pml({"type": miner}, "miners")
    )
    earlier, x = draw(1, 8), draw(0, 6).requires_grad_()
    groups = torch.tensor([0, 1, 2, 3, 0, 1])
    bank(earlier, groups_of(8))
    torch.manual_seed(0)
    expected = bank(x, groups)
    own = torch.cat([torch.zeros(6, 8), torch.eye(6)], dim=1).bool()
    memory = torch.cat([earlier, x.detach()])
    torch.manual_seed(0)
    value = loss.memory_loss(x, groups, memory, torch.cat([groups_of(8), groups]), own)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
    (got,), (wanted,) = torch.autograd.grad(value, x), torch.autograd.grad(expected, x)
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


REDUCERS = sorted(name for name, kind in pml_names().items() if kind == "reducers" and name != "pml.DoNothingReducer")


REDUCER_WORDS = {
    "pml.ThresholdReducer": {"low": 0.0},
    "pml.ClassWeightedReducer": {"weights": [1.0, 2.0, 3.0, 4.0]},
    "pml.MultipleReducers": {"reducers": {"pos_loss": {"type": "pml.SumReducer"}}},
}


# One is given no divisor by these losses, with a memory or without; the other makes a matrix of batch x batch.
WITHOUT_MEMORY = {"pml.DivisorReducer": "KeyError: 'divisor'", "pml.PerAnchorReducer": "IndexError: index"}


@pytest.mark.parametrize("loss", ["pml.ContrastiveLoss", "pml.NTXentLoss"])
@pytest.mark.parametrize("reducer", REDUCERS)
def test_a_reducer_works_with_a_memory_or_is_refused_before_training(reducer, loss):
    part = {"type": reducer, **REDUCER_WORDS.get(reducer, {})}
    built = registry.losses.build({"type": loss, "reducer": part})
    if reducer in WITHOUT_MEMORY:
        message = rf"{loss} \(with .*{reducer}.*\) fails against a cross-batch memory \({WITHOUT_MEMORY[reducer]}"
        with pytest.raises(ConfigError, match=message):
            built.check_memory()
        return
    built.check_memory()
    x, groups, memory = draw(0, 6).requires_grad_(), groups_of(6), draw(1, 20)
    value = built.memory_loss(x, groups, memory, groups_of(20))
    bare = getattr(losses, loss.removeprefix("pml."))(reducer=build_pml(part, "reducers"))
    expected = bare(x, groups, memory_pairs(groups, groups_of(20)), memory, groups_of(20))
    assert value == expected
    assert torch.equal(*(torch.autograd.grad(one, x)[0] for one in (value, expected)))


@pytest.mark.parametrize("miner", [None, "pml.DistanceWeightedMiner"])
def test_looking_whether_a_memory_works_changes_nothing(miner):
    miner = miner and {"type": miner}
    loss = registry.losses.build({"type": "pml.TripletMarginLoss", "triplets_per_anchor": 3, "miner": miner})
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), repr(loss), loss.figures()
    loss.check_memory()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), repr(loss), loss.figures()) == before[1:]


@pytest.mark.parametrize("name", SUPPORTED)
def test_every_loss_with_a_memory_passes_the_look(name):
    registry.losses.build(config_of(name)).check_memory()


def test_the_losses_without_one_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"losses that have a memory form, pml\.FastAPLoss has none; leave out xbm"):
        registry.losses.build(config_of("pml.FastAPLoss")).check_memory()


def test_own_entries_are_taken_out_by_item_not_by_place():
    own = torch.tensor([[False, True, False], [True, False, False]])
    pairs = memory_pairs(torch.tensor([7, 7]), torch.tensor([7, 7, 8]), own)
    assert [rows.tolist() for rows in pairs] == [[0, 1], [0, 1], [0, 1], [2, 2]]
    everything = memory_pairs(torch.tensor([7, 7]), torch.tensor([7, 7, 8]))
    assert [rows.tolist() for rows in without_own(everything, own)] == [rows.tolist() for rows in pairs]
    assert without_own(everything, None) is everything


@pytest.mark.parametrize("name", SUPPORTED)
def test_an_empty_memory_and_an_empty_batch_are_zero(name):
    loss = registry.losses.build(config_of(name))
    x, groups = draw(0).requires_grad_(), groups_of()
    assert loss.memory_loss(x, groups, x[:0], groups[:0]).item() == 0
    assert loss(x[:0], groups[:0]).item() == 0
