import io

import lightning
import pytest
import torch

from simtrain import CacheConfig, CacheType, XbmConfig, registry
from simtrain.data import GroupSimilarityDataLoader, PairsSimilarityDataLoader, SimilarityTripletSample
from simtrain.data.batches import PAIRS, TRIPLETS
from simtrain.errors import ConfigError
from simtrain.losses import (
    ArcFaceLoss,
    CombinedLoss,
    ContrastiveLoss,
    CoSENTLoss,
    GroupLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
    SupConLoss,
    TripletLoss,
)
from simtrain.training.memory import BatchMemory
from tests.training.models import group_model, group_samples, pair_model, pair_samples


def batch(seed, items, dim=5):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(len(items), dim, generator=generator, dtype=torch.float64).requires_grad_()
    return embeddings, {"groups": torch.tensor(items) % 2, "items": torch.tensor(items)}


@pytest.mark.parametrize("loss", [TripletLoss(), SupConLoss()])
def test_an_item_never_meets_an_entry_of_its_own(loss):
    memory = BatchMemory(XbmConfig(buffer_size=16, start_iteration=0, weight=2.0, dtype=torch.float64), loss, 5)
    first, targets = batch(0, [0, 1, 2, 3])
    memory(first, targets)
    second, targets = batch(1, [2, 3, 4, 5])
    value = memory(second, targets)
    stored = torch.cat([first, second]).detach()
    items = torch.tensor([0, 1, 2, 3, 2, 3, 4, 5])
    own = targets["items"].unsqueeze(1) == items
    expected = 2.0 * loss.memory_loss(second, targets["groups"], stored, items % 2, own)
    torch.testing.assert_close(value, expected)
    unmasked = 2.0 * loss.memory_loss(second, targets["groups"], stored, items % 2)
    assert not torch.isclose(value, unmasked)


def test_without_numbers_the_entries_of_the_batch_itself_are_its_own():
    loss = SupConLoss()
    memory = BatchMemory(XbmConfig(buffer_size=16, start_iteration=0, dtype=torch.float64), loss, 5)
    embeddings, targets = batch(0, [0, 1, 2, 3])
    groups = targets["groups"]
    value = memory(embeddings, {"groups": groups})
    own = torch.eye(4, dtype=torch.bool)
    torch.testing.assert_close(value, loss.memory_loss(embeddings, groups, embeddings.detach(), groups, own))


def test_gradients_flow_through_a_step_that_also_stores():
    memory = BatchMemory(XbmConfig(buffer_size=6, start_iteration=0), TripletLoss(), 5)
    for seed in range(4):  # the ring wraps around while losses are still to be differentiated
        embeddings, targets = batch(seed, [0, 1, 2, 3])
        memory(embeddings.float(), targets).backward()
        assert embeddings.grad is not None
        assert bool(torch.isfinite(embeddings.grad).all())
    assert memory.buffer.is_full


def test_nothing_is_added_before_the_start_but_the_ring_fills():
    memory = BatchMemory(XbmConfig(buffer_size=8, start_iteration=2), TripletLoss(), 5)
    values = []
    for seed in range(3):
        embeddings, targets = batch(seed, [0, 1, 2, 3])
        values.append(float(memory(embeddings.detach().float(), targets)))
    assert values[:2] == [0.0, 0.0]
    assert values[2] > 0


def test_a_loss_without_a_memory_form_is_refused():
    loss = ArcFaceLoss(embedding_size=5, num_groups=2)
    with pytest.raises(ConfigError, match="ArcFaceLoss has none; leave out xbm or choose another loss"):
        BatchMemory.build(XbmConfig(), loss, 5)
    assert BatchMemory.build(None, loss, 5) is None


REFUSED = {
    "learnt temperature": (
        MultipleNegativesRankingLoss(distance="euclidean", temperature={"initial": 0.5}),
        "a learnt temperature works with a cross-batch memory for distance='cosine' or 'dot', not 'euclidean'",
    ),
    "miner": (TripletLoss(miner={"type": "SemiHardMiner"}), "TripletLoss with a miner has no memory form"),
    "part": (
        CombinedLoss({"near": TripletLoss(), "classes": ArcFaceLoss(5, 2)}),
        "CombinedLoss: classes: .*ArcFaceLoss has none",
    ),
    "kinds": (CombinedLoss({"a": TripletLoss(), "b": ContrastiveLoss()}), "{'a': 'groups', 'b': 'pairs'}"),
    "prefixes": (MatryoshkaLoss(CoSENTLoss(), [2]), "MatryoshkaLoss: loss: .*CoSENTLoss has none"),
    "pml": (registry.losses.build({"type": "pml.FastAPLoss"}), "pml.FastAPLoss has none"),
    "pml reducer": (
        registry.losses.build({"type": "pml.NTXentLoss", "reducer": {"type": "pml.PerAnchorReducer"}}),
        r"pml.NTXentLoss \(with pml.PerAnchorReducer, .*\) fails against a cross-batch memory",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_peers_7_what_would_fail_in_the_first_step_with_the_memory_is_refused_at_construction(name):
    loss, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message):
        BatchMemory.build(XbmConfig(), loss, 5)
    with pytest.raises(ConfigError, match=message):
        group_model(loss=loss, xbm=XbmConfig())


def test_a_frozen_temperature_is_a_number():
    loss = MultipleNegativesRankingLoss(distance="euclidean", temperature={"initial": 0.5})
    loss.requires_grad_(False)
    memory = BatchMemory.build(XbmConfig(buffer_size=16, start_iteration=0), loss, 5)
    assert memory(*pair_batch(0, [0, 1, 2])).isfinite()


@pytest.mark.parametrize("start", [0, 1, 3])
def test_peers_7_the_memory_fills_from_the_first_step_and_is_used_after_exactly_start_iteration_steps(start):
    memory = BatchMemory(XbmConfig(buffer_size=64, start_iteration=start), SupConLoss(), 5)
    for step in range(6):
        embeddings, targets = batch(step, [0, 1, 2, 3])
        value = memory(embeddings.float(), targets)
        assert len(memory.buffer) == 4 * (step + 1)
        assert (value.item() > 0) == (step >= start), "step 0 is the first"


def test_peers_7_and_19_everything_is_in_the_checkpoint():
    config = XbmConfig(buffer_size=6, start_iteration=2)
    memory, restored = (BatchMemory(config, SupConLoss(), 5) for _ in range(2))
    for seed in range(2):
        embeddings, targets = batch(seed, [0, 1, 2, 3])
        memory(embeddings.float(), {"groups": targets["groups"]})
    file = io.BytesIO()
    torch.save(memory.state_dict(), file)
    file.seek(0)
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert restored.buffer.is_full
    for seed in range(2, 5):
        embeddings, targets = batch(seed, [0, 1, 2, 3])
        values = [one(embeddings.float(), {"groups": targets["groups"]}) for one in (memory, restored)]
        assert values[0] == values[1] != 0
    assert all(torch.equal(*rows) for rows in zip(memory.buffer.get(), restored.buffer.get(), strict=True))


def test_peers_21_rows_that_are_not_finite_are_refused_and_counted():
    memory = BatchMemory(XbmConfig(buffer_size=16, start_iteration=0), SupConLoss(), 5)
    embeddings, targets = batch(0, [0, 1, 2, 3])
    spoilt = embeddings.detach().float()
    spoilt[1] = torch.nan
    memory(spoilt, targets)
    assert memory.n_refused == 1
    assert memory.buffer.get()[2].tolist() == [0, 2, 3]
    embeddings, targets = batch(1, [0, 1, 2, 3])
    assert memory(embeddings.float(), targets).isfinite()


def test_every_row_counts_of_a_batch_larger_than_the_memory():
    loss = SupConLoss()
    memory = BatchMemory(XbmConfig(buffer_size=3, start_iteration=0, dtype=torch.float64), loss, 5)
    embeddings, targets = batch(0, [0, 1, 2, 3, 4])
    value, groups = memory(embeddings, targets), targets["groups"]
    own = torch.arange(5).unsqueeze(1) == torch.arange(2, 5)
    torch.testing.assert_close(value, loss.memory_loss(embeddings, groups, embeddings[2:].detach(), groups[2:], own))


def triplet_batch(seed, numbers):
    """Anchors, positives and one negative each; groups are numbered within the batch."""
    n = len(numbers)
    items = torch.cat([torch.tensor(numbers) + 100 * part for part in range(3)])
    embeddings = torch.randn(3 * n, 5, generator=torch.Generator().manual_seed(seed))
    samples = [SimilarityTripletSample(0, 0, [0])] * n
    return embeddings, {**TRIPLETS.targets(TRIPLETS.labels(samples)), "items": items}


def test_groups_of_triplet_batches_do_not_meet_those_of_other_batches():
    memory = BatchMemory(XbmConfig(buffer_size=16, start_iteration=0), SupConLoss(), 5)
    memory(*triplet_batch(0, [3, 4]))
    memory(*triplet_batch(1, [4, 5]))
    assert memory.buffer.get()[1].tolist() == [3, 4, 3, 4, 203, 204, 4, 5, 4, 5, 204, 205]


def pair_batch(seed, numbers, subgroups=None):
    n = len(numbers)
    embeddings = torch.randn(2 * n, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    targets = PAIRS.targets({"labels": torch.ones(n), "subgroups": torch.tensor(subgroups or [0] * n)})
    targets["items"] = torch.cat([torch.tensor(numbers), torch.tensor(numbers) + 100])
    return embeddings.requires_grad_(), targets


def cosine(a, b):
    return torch.nn.functional.cosine_similarity(a.unsqueeze(1), b.unsqueeze(0), dim=2)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("same_side", [False, True])
def test_queries_are_asked_for_their_document_among_the_remembered_ones(symmetric, same_side):
    loss = MultipleNegativesRankingLoss(scale=4, symmetric=symmetric, same_side=same_side)
    memory = BatchMemory(XbmConfig(buffer_size=40, start_iteration=0, dtype=torch.float64), loss, 5)
    batches = [pair_batch(0, [0, 1, 2], [0, 7, 8]), pair_batch(1, [2, 3, 4], [0, 0, 7])]
    values = [memory(*one) for one in batches]
    embeddings, targets = batches[1]
    rows = torch.cat([one.detach() for one, _ in batches])
    items = torch.cat([one["items"] for _, one in batches])
    subgroups = torch.cat([one["subgroups"] for _, one in batches])
    side = torch.tensor([0, 0, 0, 1, 1, 1] * 2)
    terms = []
    for direction in range(2 if symmetric else 1):
        for i in range(3):
            own, other = (i, i + 3) if direction == 0 else (i + 3, i)
            exact = torch.exp(4 * cosine(embeddings[[own]], embeddings[[other]]))[0, 0]
            total = exact
            for row in range(12):
                if side[row] == direction and not same_side:
                    continue
                if items[row] in (targets["items"][own], targets["items"][other]):
                    continue
                if subgroups[row] == targets["subgroups"][own] != 0:
                    continue
                total = total + torch.exp(4 * cosine(embeddings[[own]], rows[[row]]))[0, 0]
            terms.append(-torch.log(exact / total))
    expected = torch.stack(terms).mean()
    torch.testing.assert_close(values[1], expected, rtol=1e-8, atol=1e-8)
    gradients = [torch.autograd.grad(one, embeddings)[0] for one in (values[1], expected)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("size_average", [False, True])
def test_contrastive_pairs_are_pushed_from_remembered_rows_of_other_subgroups(size_average):
    loss = ContrastiveLoss(margin=0.9, size_average=size_average)
    memory = BatchMemory(XbmConfig(buffer_size=40, start_iteration=0, dtype=torch.float64), loss, 5)
    memory(*pair_batch(0, [0, 1, 2], [1, 2, 3]))
    embeddings, targets = pair_batch(1, [2, 3, 4], [3, 1, 5])
    value = memory(embeddings, targets)
    rows, groups, _ = memory.buffer.get()
    distances = (1 - cosine(embeddings, rows)).masked_fill(targets["subgroups"].unsqueeze(1) == groups, torch.inf)
    expected = (0.9 - distances.amin(dim=1)).relu().square().sum() / (3 if size_average else 1)
    torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-8)
    gradients = [torch.autograd.grad(one, embeddings)[0] for one in (value, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


def test_pairs_without_subgroups_have_nothing_to_be_pushed_from():
    memory = BatchMemory(XbmConfig(buffer_size=40, start_iteration=0), ContrastiveLoss(), 5)
    embeddings, targets = pair_batch(0, [0, 1, 2])
    value = memory(embeddings.float(), targets)
    assert value == 0
    assert (torch.autograd.grad(value, embeddings)[0] == 0).all()


@pytest.mark.filterwarnings("ignore:.*(many workers|LeafSpec|eval mode at the start|logging interval|no `val_data).*")
def test_a_fit_of_other_data_begins_with_an_empty_memory_and_a_resumed_one_does_not(tmp_path):
    model = group_model(xbm=XbmConfig(buffer_size=64, start_iteration=6))
    others = GroupSimilarityDataLoader(group_samples(8, groups=2), batch_size=8)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    fits = [lightning.Trainer(max_epochs=epochs, accelerator="cpu", **quiet) for epochs in (2, 1, 3)]
    fits[0].fit(model, GroupSimilarityDataLoader(group_samples(), batch_size=8))
    assert len(model._memory.buffer) == 48
    fits[0].save_checkpoint(tmp_path / "first.ckpt")
    fits[1].fit(model, others)
    assert len(model._memory.buffer) == 8
    assert fits[1].callback_metrics["train_xbm_loss"] > 0, "steps are counted on: embeddings are as steady as before"
    fits[2].fit(model, GroupSimilarityDataLoader(group_samples(), batch_size=8), ckpt_path=tmp_path / "first.ckpt")
    assert len(model._memory.buffer) == 64


def test_the_share_of_the_memory_and_the_refused_rows_are_logged():
    config = XbmConfig(buffer_size=8, start_iteration=1, weight=3.0)
    loss = CombinedLoss({"near": TripletLoss(), "many": SupConLoss()})
    model = group_model(loss=loss, xbm=config)
    first = model.train_step(group_samples()[:8])
    assert (first["xbm_loss"], first["xbm_n_active"], first["xbm_refused"]) == (0, 0, 0)
    torch.testing.assert_close(first["loss"], first["loss_near"] + first["loss_many"])
    results = model.train_step(group_samples()[8:16])
    assert results["xbm_loss"] > 0
    torch.testing.assert_close(results["loss"], results["loss_near"] + results["loss_many"] + results["xbm_loss"])
    assert not results["xbm_loss"].requires_grad
    # The parts of a sum against the memory, before their weights and the memory's; the batch's own stay beside them.
    torch.testing.assert_close(results["xbm_loss"], 3 * (results["xbm_loss_near"] + results["xbm_loss_many"]))
    assert results["xbm_n_active"] == results["xbm_near_n_active"] + results["xbm_many_n_active"]
    assert results["n_active"] == results["near_n_active"] + results["many_n_active"]


def test_what_a_loss_leaves_of_the_batch_is_not_taken_for_the_memory_s():
    class Own(GroupLoss):
        def forward(self, embeddings, groups):
            self.note(n_active=7)
            return embeddings.sum()

        def memory_loss(self, embeddings, groups, memory_embeddings, memory_groups, own=None):
            assert own is not None
            return (embeddings @ memory_embeddings.T)[~own].mean()

    loss = Own()
    memory = BatchMemory.build(XbmConfig(buffer_size=8, start_iteration=0), loss, 5)
    embeddings, targets = batch(0, [0, 1, 2, 3])
    loss(embeddings.float(), targets["groups"])
    value = memory(embeddings.float(), targets)
    assert memory.figures() == {"xbm_loss": value, "xbm_refused": 0}
    own = torch.eye(4, dtype=torch.bool)
    torch.testing.assert_close(value, (embeddings.float() @ embeddings.float().T)[~own].mean())


def test_nested_losses_over_pairs_remember_what_their_parts_want():
    loss = CombinedLoss({"rank": MatryoshkaLoss(MultipleNegativesRankingLoss(4), [5, 2]), "push": ContrastiveLoss(0.9)})
    memory = BatchMemory.build(XbmConfig(buffer_size=40, start_iteration=0, dtype=torch.float64), loss, 5)
    alone = BatchMemory.build(
        XbmConfig(buffer_size=40, start_iteration=0, dtype=torch.float64), MultipleNegativesRankingLoss(4), 5
    )
    batches = [pair_batch(0, [0, 1, 2], [1, 2, 3]), pair_batch(1, [2, 3, 4], [3, 1, 5])]
    for one in batches:
        memory(*one)
        value = alone(*one)
    assert memory.buffer.get()[2].tolist() == [0, 1, 2, 100, 101, 102, 2, 3, 4, 102, 103, 104]
    torch.testing.assert_close(memory.figures()["xbm_rank_loss_5"], value.detach())


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("workers", [0, 1])
def test_items_are_known_again_in_the_next_epoch_whatever_the_path(prepared, cached, workers):
    cache = CacheConfig(CacheType.CPU) if cached else None
    model = group_model(xbm=XbmConfig(buffer_size=40, start_iteration=0), cache=cache)
    loader = GroupSimilarityDataLoader(group_samples(12), batch_size=4, shuffle=True, num_workers=workers)
    if prepared:
        loader = model.setup_dataloader(loader)
    for _ in range(2):
        for one in loader:
            model.train_step(one)
    _, groups, items = model._memory.buffer.get()
    assert sorted(items.tolist()) == sorted([*range(12), *range(12)])
    assert groups.tolist() == [item % 6 for item in items.tolist()]


@pytest.mark.parametrize("cached", [False, True])
def test_both_items_of_a_pair_have_numbers_of_their_own(cached):
    cache = CacheConfig(CacheType.CPU) if cached else None
    model = pair_model(xbm=XbmConfig(buffer_size=40, start_iteration=0), cache=cache)
    loader = model.setup_dataloader(PairsSimilarityDataLoader(pair_samples(12), batch_size=4))
    for one in loader:
        model.train_step(one)
    _, _, items = model._memory.buffer.get()
    assert items.tolist() == [*range(12, 24)], "documents alone are remembered"
