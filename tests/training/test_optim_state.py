"""The state of an OptimWrapper: saved, loaded, refused."""

import copy
import io

import pytest
import torch
from torch import nn

from simtrain.errors import CheckpointError
from simtrain.training.optim_wrapper import OptimWrapper
from tests.training.optimized_models import (
    SETTINGS,
    batches_of,
    loss_of,
    model_of,
    optimizer_of,
    plain_steps,
    train,
    weights,
)


def stored(state):
    """As a checkpoint file gives it back."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("stop", range(9))
@pytest.mark.parametrize("announced", [True, False])
def test_a_resumed_run_equals_an_uninterrupted_one(kind, stop, announced):
    batches = batches_of(8)
    expected, model = model_of(), model_of()
    whole = OptimWrapper(optimizer_of(expected, kind), 3)
    whole.initialize_count_status(expected, 0, 8)
    train(whole, expected, batches)

    first = OptimWrapper(optimizer_of(model, kind), 3)
    first.initialize_count_status(model, 0, 8)
    train(first, model, batches[:stop])
    state = stored(first.state_dict())
    resumed = copy.deepcopy(model)
    resumed.zero_grad()
    second = OptimWrapper(optimizer_of(resumed, kind), 3)
    second.load_state_dict(state)
    if announced:
        second.initialize_count_status(resumed, stop, 8)
    train(second, resumed, batches[stop:])
    assert torch.equal(weights(resumed), weights(expected))
    assert second.n_updates == 3


def test_gradients_are_in_the_state_only_in_the_middle_of_a_window():
    model = model_of()
    wrapper = OptimWrapper(optimizer_of(model), 2)
    seen = []
    for batch in batches_of(4):
        wrapper.update_params(loss_of(model, batch))
        seen.append(wrapper.state_dict()["accumulation"]["gradients"] is None)
    assert seen == [False, True, False, True]


def test_loading_drops_gradients_that_do_not_belong_to_the_state():
    model = model_of()
    wrapper = OptimWrapper(optimizer_of(model), 2)
    state = stored(wrapper.state_dict())
    wrapper.update_params(loss_of(model, batches_of(1)[0]))
    wrapper.load_state_dict(state)
    assert model[0].weight.grad is None


def test_a_bare_optimizer_s_state_is_taken_and_its_keys_are_kept():
    model, other = model_of(), model_of()
    optimizer = optimizer_of(model, "adam")
    plain_steps(model, optimizer, [batches_of(1)])
    wrapper = OptimWrapper(optimizer_of(other, "adam"))
    wrapper.load_state_dict(stored(optimizer.state_dict()))
    assert torch.equal(
        wrapper.optimizer.state_dict()["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"]
    )
    assert wrapper.n_updates == 0
    assert wrapper.state_dict().keys() == {"state", "param_groups", "accumulation"}


def test_a_state_that_does_not_fit_is_refused():
    model = model_of()
    wrapper = OptimWrapper(optimizer_of(model), 3)
    wrapper.update_params(loss_of(model, batches_of(1)[0]))
    state = stored(wrapper.state_dict())
    with pytest.raises(
        CheckpointError, match="saved in the middle of a window of 3 batches, accumulative_counts is 2 "
    ):
        OptimWrapper(optimizer_of(model), 2).load_state_dict(state)
    with pytest.raises(CheckpointError, match="the state does not fit the optimizer: 'state'"):
        wrapper.load_state_dict({"weights": 1})
    other = OptimWrapper(torch.optim.SGD([nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(2))], lr=0.1), 3)
    with pytest.raises(CheckpointError, match="the gradients in the state do not fit the optimizer's parameters"):
        other.load_state_dict(state)
    with pytest.raises(CheckpointError, match="the state does not fit the optimizer: loaded state dict"):
        other.load_state_dict(OptimWrapper(optimizer_of(model)).state_dict())
