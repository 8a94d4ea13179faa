import math

import pytest
import torch

from simtrain.errors import ContractError, DataError
from simtrain.training.loss_check import check_loss


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_single_finite_number_with_its_graph_is_fine(shape):
    check_loss(torch.ones(shape, requires_grad=True) * 2)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (1.0, "the loss should be a tensor with its graph, got a float"),
        ({"loss": 1}, "the loss should be a tensor with its graph, got a dict"),
        (torch.ones(3, requires_grad=True), r"the loss should be a single number, got the shape \(3,\); take its mean"),
        (torch.ones(0, requires_grad=True), r"the loss should be a single number, got the shape \(0,\)"),
        (torch.tensor(1.0), "the loss has no graph: nothing it was computed from is trainable, or it was detached"),
    ],
)
def test_anything_else_breaks_the_contract(without_type_checks, loss, message):
    with pytest.raises(ContractError, match=message):
        check_loss(loss)


@pytest.mark.parametrize(("value", "name"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_a_loss_that_is_not_finite_is_refused(value, name):
    message = f"the loss is {name}; no weight was changed; look at the batch, lower the learning rate or clip gradients"
    with pytest.raises(DataError, match=message):
        check_loss(torch.tensor(value, requires_grad=True))
