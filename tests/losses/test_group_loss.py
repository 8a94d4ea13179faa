import pytest
import torch

from simtrain.errors import ConfigError
from simtrain.losses import CandidateLoss, GroupLoss, PairwiseLoss, SupConLoss, TripletLoss


class Spread(GroupLoss):
    def forward(self, embeddings, groups):
        return embeddings.square().mean()


def test_a_loss_without_a_memory_form_says_so():
    with pytest.raises(
        ConfigError, match=r"Spread has no memory form, .*\(XBM\); use a loss whose supports_memory is True"
    ):
        Spread().memory_loss(torch.ones(2, 2), torch.tensor([0, 1]), torch.ones(1, 2), torch.tensor([0]))


def test_supports_memory_tells_whether_memory_loss_is_there():
    assert [loss.supports_memory for loss in (Spread(), TripletLoss(), SupConLoss())] == [False, True, True]


@pytest.mark.parametrize("base", [GroupLoss, PairwiseLoss])
def test_a_loss_without_a_formula_is_named(base):
    arguments = (torch.ones(2, 2), torch.tensor([0, 1]))
    if base is PairwiseLoss:
        arguments = (torch.ones(2, 2), torch.tensor([[0, 1]]), torch.ones(1), torch.tensor([0, 0]))
    with pytest.raises(NotImplementedError, match=f"{base.__name__} must implement `forward`"):
        base()(*arguments)
    with pytest.raises(NotImplementedError, match="CandidateLoss must implement `compare`"):
        CandidateLoss()(torch.ones(2, 2), torch.tensor([0, 1]))


@pytest.mark.parametrize("loss", [TripletLoss(), SupConLoss()], ids=lambda loss: type(loss).__name__)
def test_an_empty_memory_costs_nothing(loss):
    embeddings = torch.randn(3, 2, requires_grad=True)
    no_groups = torch.zeros(0, dtype=torch.long)
    value = loss.memory_loss(embeddings, torch.tensor([0, 0, 1]), torch.zeros(0, 2), no_groups)
    assert value.item() == 0
    assert (torch.autograd.grad(value, embeddings)[0] == 0).all()


@pytest.mark.parametrize("loss", [TripletLoss(), TripletLoss(mining="all"), SupConLoss()], ids=repr)
def test_a_memory_that_is_the_batch_itself_equals_the_batch(loss):
    embeddings, groups = torch.randn(9, 4, dtype=torch.float64), torch.arange(9) % 3
    own = torch.eye(9, dtype=torch.bool)
    torch.testing.assert_close(loss.memory_loss(embeddings, groups, embeddings, groups, own), loss(embeddings, groups))


def test_groups_far_beyond_float32_stay_apart():
    # As float32, both numbers are 16,777,216.
    embeddings, groups = torch.eye(3), torch.tensor([16_777_216, 16_777_217, 16_777_217])
    assert SupConLoss()(embeddings, groups) == SupConLoss()(embeddings, torch.tensor([0, 1, 1]))
