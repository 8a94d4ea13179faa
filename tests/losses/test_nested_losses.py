"""Losses that hold others: weighted sums and Matryoshka."""

import json

import pytest
import torch

from simtrain import registry
from simtrain.errors import ConfigError, DataError
from simtrain.losses import (
    CombinedLoss,
    ContrastiveLoss,
    CoSENTLoss,
    FastAPLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
    NTXentLoss,
    SoftmaxLoss,
    SupConLoss,
    TripletLoss,
)
from simtrain.losses.memory_blocks import BLOCK
from simtrain.losses.memory_rows import MemoryRows

GROUPS = torch.tensor([0, 0, 1, 1, 2, 2])


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_matryoshka_is_the_weighted_sum_over_prefixes():
    x, inner = draw(0, 6, 8).requires_grad_(), TripletLoss(0.4, mining="all")
    loss = MatryoshkaLoss(inner, sizes=[8, 4, 2], weights=[1.0, 0.5, 0.25])
    value, parts = loss(x, GROUPS), {size: inner(x[:, :size], GROUPS) for size in (8, 4, 2)}
    expected = parts[8] + 0.5 * parts[4] + 0.25 * parts[2]
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value, x), torch.autograd.grad(expected, x))
    for size, part in parts.items():
        torch.testing.assert_close(loss.figures()[f"loss_{size}"], part.detach())
        assert f"n_active_{size}" in loss.figures()


def test_matryoshka_over_pairs():
    x, pairs, rows = draw(0, 8, 6), torch.arange(8).view(2, 4).T, torch.zeros(8, dtype=torch.long)
    labels = torch.tensor([1.0, 0.5, 0.0, 1.0]).double()
    for inner in (MultipleNegativesRankingLoss(), CoSENTLoss(), ContrastiveLoss()):
        loss = MatryoshkaLoss(inner, sizes=[2, 6])
        assert loss.target_names == ("pairs", "labels", "subgroups")
        assert not loss.supports_memory
        assert loss.supports_pair_memory == inner.supports_pair_memory
        expected = inner(x, pairs, labels, rows) + inner(x[:, :2], pairs, labels, rows)
        torch.testing.assert_close(loss(x, pairs, labels, rows), expected)


def test_matryoshka_against_a_memory():
    x, memory, memory_groups = draw(0, 6, 8).requires_grad_(), draw(1, 9, 8), torch.arange(9) % 3
    own, inner = draw(2, 6, 9) > 1, SupConLoss()
    loss = MatryoshkaLoss(inner, sizes=[8, 3])
    assert loss.supports_memory
    expected = sum(inner.memory_loss(x[:, :k], GROUPS, memory[:, :k], memory_groups, own) for k in (8, 3))
    torch.testing.assert_close(loss.memory_loss(x, GROUPS, memory, memory_groups, own), expected)


def test_a_sum_of_losses():
    x = draw(0, 6, 8).requires_grad_()
    triplet, supcon = TripletLoss(), SupConLoss()
    loss = CombinedLoss({"near": triplet, "many": supcon}, weights={"many": 0.25})
    value, expected = loss(x, GROUPS), triplet(x, GROUPS) + 0.25 * supcon(x, GROUPS)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value, x), torch.autograd.grad(expected, x))
    torch.testing.assert_close(loss.figures()["loss_many"], supcon(x, GROUPS).detach())
    assert set(loss.figures()) == {"loss_near", "loss_many", "n_active", "near_n_active", "many_n_active"}


def test_a_sum_over_groups_and_pairs_takes_the_targets_of_both():
    loss = CombinedLoss({"groups": TripletLoss(), "pairs": MultipleNegativesRankingLoss(), "more": SupConLoss()})
    assert loss.target_names == ("groups", "pairs", "labels", "subgroups")
    x, pairs, rows = draw(0, 6, 4), torch.tensor([[0, 1], [2, 3]]), torch.zeros(6, dtype=torch.long)
    targets = {"groups": GROUPS, "pairs": pairs, "labels": torch.ones(2), "subgroups": rows}
    expected = TripletLoss()(x, GROUPS) + SupConLoss()(x, GROUPS)
    expected = expected + MultipleNegativesRankingLoss()(x, pairs, torch.ones(2), rows)
    torch.testing.assert_close(loss(x, *(targets[name] for name in loss.target_names)), expected)


def test_the_named_parts_alone_meet_the_memory():
    x, memory, groups = draw(0, 6, 4), draw(1, 9, 4), torch.arange(9) % 3
    parts = {"many": SupConLoss(), "classes": SoftmaxLoss(4, 3).double()}
    loss = CombinedLoss(parts, {"many": 0.5}, memory=["many"])
    assert loss.supports_memory
    loss.check_memory()
    value = loss.memory_loss(x, GROUPS, memory, groups)
    torch.testing.assert_close(value, 0.5 * SupConLoss().memory_loss(x, GROUPS, memory, groups))
    assert set(loss.figures()) >= {"loss_many"}
    assert "loss_classes" not in loss.figures()
    assert loss.get_config_dict()["memory"] == ["many"]


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            CombinedLoss({"many": SupConLoss(), "classes": SoftmaxLoss(4, 3)}),
            "CombinedLoss: classes: .* SoftmaxLoss has",
        ),
        (
            CombinedLoss({"a": MultipleNegativesRankingLoss(), "b": CoSENTLoss()}),
            "CombinedLoss: b: .* CoSENTLoss has none",
        ),
        (
            CombinedLoss({"near": TripletLoss(), "pairs": MultipleNegativesRankingLoss()}),
            "of groups or of pairs, the parts are over {'near': 'groups', 'pairs': 'pairs'}; name in memory those of",
        ),
        (MatryoshkaLoss(CoSENTLoss(), [2]), "MatryoshkaLoss: loss: .* CoSENTLoss has none"),
        (
            CombinedLoss({"a": MatryoshkaLoss(TripletLoss(miner={"type": "SemiHardMiner"}), [2])}),
            "CombinedLoss: a: MatryoshkaLoss: loss: TripletLoss with a miner has no memory form",
        ),
        (
            CombinedLoss({"a": MultipleNegativesRankingLoss(distance="euclidean", temperature={"initial": 0.1})}),
            "CombinedLoss: a: .* a learnt temperature works .*'cosine' or 'dot', not 'euclidean'",
        ),
    ],
)
def test_a_part_without_a_memory_form_is_refused_by_its_name(loss, message):
    with pytest.raises(ConfigError, match=message):
        loss.check_memory()
    if not loss.supports_memory:
        with pytest.raises(ConfigError, match="has no memory form"):
            loss.memory_loss(draw(0, 6, 4), GROUPS, draw(1, 6, 4), GROUPS)


def rows_of(n=9, dtype=torch.float64):
    items = torch.arange(n)
    rows = draw(1, n, 8).to(dtype)
    return MemoryRows(rows, items % 3, items, items.to(torch.int8) % 2, rows.double().norm(dim=1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_nested_losses_against_remembered_rows_are_the_sums_of_their_parts(dtype):
    x, items, memory = draw(0, 6, 8).requires_grad_(), torch.arange(4, 10), rows_of(dtype=dtype)
    near, many, ranks = TripletLoss(mining="all"), SupConLoss(), FastAPLoss()
    loss = CombinedLoss({"near": near, "sizes": MatryoshkaLoss(many, [8, 3]), "ranks": ranks}, {"near": 0.5})
    own = items.unsqueeze(1) == memory.items
    expected = 0.5 * near.memory_loss(x, GROUPS, memory.embeddings, memory.groups, own)
    expected = expected + ranks.memory_loss(x, GROUPS, memory.embeddings, memory.groups, own)
    for k in (8, 3):
        expected = expected + many.memory_loss(x[:, :k], GROUPS, memory.embeddings[:, :k], memory.groups, own)
    value = loss.memory_rows_loss(x, GROUPS, items, memory)
    bounds = {"rtol": 1e-8, "atol": 1e-8} if dtype == torch.float64 else {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(value, expected, **bounds)
    torch.testing.assert_close(torch.autograd.grad(value, x), torch.autograd.grad(expected, x), **bounds)


class Shapes(torch.utils._python_dispatch.TorchDispatchMode):
    """The sizes of all tensors that operations make."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.found.add(tuple(result.shape))
        return result


@pytest.mark.slow
def test_nested_losses_never_copy_the_memory_nor_compare_in_one_piece():
    x, groups, items = draw(0, 70, 8).requires_grad_(), torch.arange(70) % 3, torch.arange(70)
    n = BLOCK // 64 + 1  # more than 64 anchors do not fit into a block
    memory = MemoryRows(torch.randn(n, 8, dtype=torch.float64), torch.arange(n) % 999, torch.arange(n), None)
    loss = CombinedLoss({"near": TripletLoss(), "sizes": MatryoshkaLoss(TripletLoss(), [8, 4])})
    with Shapes() as shapes:
        loss.memory_rows_loss(x, groups, items, memory).backward()
    assert (70, n) not in shapes.found
    assert max(len(shape) and shape[0] for shape in shapes.found if len(shape) == 2 and shape[1] == n) == 64


def test_nested_losses_over_pairs_meet_a_memory():
    x, pairs, rows = draw(0, 6, 8).requires_grad_(), torch.arange(6).view(2, 3).T, torch.tensor([1, 0, 2, 1, 0, 2])
    labels, items, memory = torch.tensor([1.0, 0.5, 1.0]).double(), torch.arange(4, 10), rows_of()
    ranking, push = MultipleNegativesRankingLoss(5), ContrastiveLoss(1.5)
    loss = CombinedLoss({"ranking": MatryoshkaLoss(ranking, [8, 3]), "push": push}, {"push": 2})
    loss.check_memory()
    given = (pairs, labels, rows, items)
    expected = 2 * push.pair_memory_loss(x, *given, memory) + ranking.pair_memory_loss(x, *given, memory)
    cut = MemoryRows(memory.embeddings[:, :3], memory.groups, memory.items, memory.sides)
    expected = expected + ranking.pair_memory_loss(x[:, :3], *given, cut)
    value = loss.pair_memory_loss(x, *given, memory)
    torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(torch.autograd.grad(value, x), torch.autograd.grad(expected, x), rtol=1e-8, atol=1e-8)
    # Of the ranking, documents alone are remembered; the other loss wants both.
    assert MatryoshkaLoss(ranking, [3]).remembered_rows(pairs).tolist() == [3, 4, 5]
    assert loss.remembered_rows(pairs).tolist() == [0, 1, 2, 3, 4, 5]


def test_parameters_of_parts_are_the_sums_own():
    loss = CombinedLoss({"classes": SoftmaxLoss(4, 3), "views": MatryoshkaLoss(NTXentLoss({"initial": 0.1}), [2])})
    names = [name for name, _ in loss.named_parameters()]
    assert names == ["parts.loss_classes.weights", "parts.loss_views.loss.temperature.log_temperature"]
    again = registry.losses.build({"type": "CombinedLoss", **json.loads(json.dumps(loss.get_config_dict()))})
    again.load_state_dict(loss.state_dict())
    x = torch.randn(6, 4)
    assert again(x, GROUPS) == loss(x, GROUPS)


def test_built_from_a_nested_config():
    config = {
        "type": "CombinedLoss",
        "losses": {
            "values": {"type": "MatryoshkaLoss", "loss": {"type": "TripletLoss", "margin": 0.2}, "sizes": [4, 2]},
            "many": {"type": "SupConLoss", "temperature": {"start": 0.5, "end": 0.1, "steps": 100}},
        },
        "weights": {"values": 2},
    }
    loss = registry.losses.build(config)
    values = MatryoshkaLoss(TripletLoss(0.2), [4, 2])
    x = draw(0, 6, 4)
    torch.testing.assert_close(loss(x, GROUPS), 2 * values(x, GROUPS) + SupConLoss(0.5)(x, GROUPS))
    assert registry.losses.build({"type": "CombinedLoss", **loss.get_config_dict()})(x, GROUPS) == loss(x, GROUPS)


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MatryoshkaLoss(TripletLoss(), []), r"sizes must be different whole numbers, 1 or more each, got \[\]"),
        (lambda: MatryoshkaLoss(TripletLoss(), [2, 2]), "sizes must be different whole numbers"),
        (lambda: MatryoshkaLoss(TripletLoss(), "42"), "sizes must be different whole numbers"),
        (lambda: MatryoshkaLoss(TripletLoss(), [2], [1, 1]), "weights must be one for each of 1 sizes"),
        (lambda: MatryoshkaLoss(TripletLoss(), [2], [0]), "each of weights must be a finite number above zero, got 0"),
        (
            lambda: MatryoshkaLoss(SoftmaxLoss(4, 3), [2]),
            "SoftmaxLoss has weights .*weights.* for one embedding size",
        ),
        (lambda: MatryoshkaLoss(torch.nn.Identity(), [2]), "loss must be a loss or its config .*, got Identity"),
        (lambda: MatryoshkaLoss({"type": "TripletLos"}, [2]), "MatryoshkaLoss: loss: unknown loss type 'TripletLos'"),
        (lambda: CombinedLoss({}), "losses must be one or more losses by name, got {}"),
        (lambda: CombinedLoss({"a.b": TripletLoss()}), "letters, digits and underscores, got 'a.b'"),
        (lambda: CombinedLoss({"a": TripletLoss()}, {"b": 1}), "no loss has the name of the weight 'b'"),
        (lambda: CombinedLoss({"a": TripletLoss()}, memory=["b"]), "memory: no loss has the name 'b'"),
        (lambda: CombinedLoss({"a": TripletLoss()}, memory=[]), r"memory must be a list of names of losses, got \[\]"),
        (lambda: CombinedLoss({"a": TripletLoss()}, {"a": 0}), "the weight of 'a' must be a finite number above zero"),
        (lambda: CombinedLoss({"a": {"type": "SupConLoss", "margin": 1}}), "CombinedLoss: a: .* no setting 'margin'"),
    ],
)
def test_wrong_settings_are_refused(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


def test_embeddings_shorter_than_a_size_are_refused():
    with pytest.raises(DataError, match="MatryoshkaLoss has sizes up to 16, but the embeddings have 8 dimensions"):
        MatryoshkaLoss(TripletLoss(), [16, 4])(torch.randn(6, 8), GROUPS)
