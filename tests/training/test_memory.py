import pytest
import torch

from simtrain import XbmConfig
from simtrain.errors import ConfigError
from simtrain.losses import ContrastiveLoss, SupConLoss, TripletLoss
from simtrain.training.memory import BatchMemory


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
    with pytest.raises(ConfigError, match="ContrastiveLoss has none; leave out xbm or choose another loss"):
        BatchMemory.build(XbmConfig(), ContrastiveLoss(), 5)
    assert BatchMemory.build(None, ContrastiveLoss(), 5) is None
