import logging
import math

import pytest
import torch
from torch import nn

from simtrain.errors import ConfigError, ContractError, DataError
from simtrain.training.optim_wrapper import OptimWrapper
from tests.training.optimized_models import batches_of, loss_of, model_of, optimizer_of, train, weights


class Delegated(OptimWrapper):
    """As a trainer's glue does it: neither method calls the one that it overrides."""

    def backward(self, loss):
        loss.backward()

    def step(self, **kwargs):
        self.clip()
        self.optimizer.step(**kwargs)


def test_a_subclass_may_replace_backward_and_step():
    batches = batches_of(8)
    expected, model = model_of(), model_of()
    for kind, trained in ((OptimWrapper, expected), (Delegated, model)):
        wrapper = kind(optimizer_of(trained), 3, {"max_norm": 0.1})
        wrapper.initialize_count_status(trained, 0, 8)
        train(wrapper, trained, batches)
        assert wrapper.n_updates == 3
    assert torch.equal(weights(model), weights(expected))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("before", [0, 1])
def test_a_loss_that_is_not_finite_changes_nothing(value, before):
    batches = batches_of(4)
    model, expected = model_of(), model_of()
    wrappers = [OptimWrapper(optimizer_of(trained), 2) for trained in (model, expected)]
    for wrapper, trained in zip(wrappers, (model, expected), strict=True):
        train(wrapper, trained, batches[:before])
    with pytest.raises(DataError, match=f"the loss is {value}; no weight was changed; look at the batch"):
        wrappers[0].update_params(loss_of(model, batches[0]) * value)
    # The batch does not count either: training goes on as if it had not been there.
    for wrapper, trained in zip(wrappers, (model, expected), strict=True):
        train(wrapper, trained, batches[before:])
    assert torch.equal(weights(model), weights(expected))


def test_the_norm_is_that_of_the_last_update_before_clipping():
    batches = batches_of(3)
    model, expected = model_of(), model_of()
    loss_of(expected, torch.cat(batches[:2])).backward()
    norm = torch.cat([parameter.grad.flatten() for parameter in expected.parameters()]).norm()
    wrapper = OptimWrapper(optimizer_of(model), 2, {"type": "norm", "max_norm": 1e-3, "norm_type": 2})
    assert wrapper.grad_norm is None
    train(wrapper, model, batches)
    assert wrapper.n_updates == 1
    torch.testing.assert_close(wrapper.grad_norm, norm)


def test_without_clipping_there_is_no_norm():
    model = model_of()
    wrapper = OptimWrapper(optimizer_of(model))
    train(wrapper, model, batches_of(1))
    assert wrapper.grad_norm is None


def test_value_clipping_reaches_the_step():
    model = model_of()
    before = weights(model)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1.0), clip_grad={"type": "value", "clip_value": 1e-3})
    train(wrapper, model, batches_of(1))
    change = (weights(model) - before).abs()
    assert change.max() <= 1e-3 + 1e-15
    assert wrapper.grad_norm > 1e-2


def test_arguments_reach_step_and_zero_grad():
    class Recording(torch.optim.SGD):
        def step(self, closure=None, wish=None):
            seen.append(wish)
            return super().step(closure)

    seen = []
    model = model_of()
    wrapper = OptimWrapper(Recording(model.parameters(), lr=0.1))
    wrapper.update_params(loss_of(model, batches_of(1)[0]), {"wish": 7}, {"set_to_none": False})
    assert seen == [7]
    assert model[0].weight.grad.abs().max() == 0


def test_groups_and_rates_are_the_optimizer_s():
    first, second = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([{"params": [first]}, {"params": [second], "lr": 0.5}], lr=torch.tensor(0.25))
    wrapper = OptimWrapper(optimizer)
    assert wrapper.param_groups is optimizer.param_groups
    assert wrapper.get_lr() == {"lr": [0.25, 0.5]}
    assert wrapper.accumulative_counts == 1


def test_batch_norm_under_accumulation_is_warned_of_once(caplog):
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    wrapper = OptimWrapper(optimizer_of(model), 2)
    with caplog.at_level(logging.WARNING, "simtrain"):
        for epoch in range(2):
            wrapper.initialize_count_status(model, 0, 4 + epoch)
    assert (
        caplog.text.count("the model has batch-norm layers: with accumulative_counts=2 they still see one batch") == 1
    )


@pytest.mark.parametrize("case", ["one batch", "frozen statistics", "no such layer"])
def test_batch_norm_is_not_warned_of_without_cause(caplog, case):
    norm = nn.LayerNorm(2) if case == "no such layer" else nn.BatchNorm1d(2)
    model = nn.Sequential(nn.Linear(3, 2), norm)
    if case == "frozen statistics":
        model[1].eval()
    wrapper = OptimWrapper(optimizer_of(model), 1 if case == "one batch" else 2)
    with caplog.at_level(logging.WARNING, "simtrain"):
        wrapper.initialize_count_status(model, 0, 4)
    assert caplog.text == ""


@pytest.mark.parametrize("counts", [(-1, 5), (3, 2), (0, -2)])
def test_counts_that_contradict_each_other_are_refused(counts):
    wrapper = OptimWrapper(optimizer_of(model_of()))
    with pytest.raises(ConfigError, match=f"got init_counts={counts[0]} and max_counts={counts[1]}"):
        wrapper.initialize_count_status(model_of(), *counts)


def test_no_batches_at_all_are_no_mistake():
    model = model_of()
    wrapper = OptimWrapper(optimizer_of(model), 2)
    wrapper.initialize_count_status(model, 0, 0)
    wrapper.initialize_count_status(model, 0, -1)
    assert wrapper.n_updates == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"accumulative_counts": 0}, "accumulative_counts must be a positive integer, got 0"),
        ({"accumulative_counts": True}, "accumulative_counts must be a positive integer, got True"),
        ({"accumulative_counts": 1.5}, "accumulative_counts must be a positive integer, got 1.5"),
        ({"clip_grad": {"max_nrom": 1.0}}, "has no setting 'max_nrom'; did you mean 'max_norm'"),
        ({"clip_grad": {"type": "valeu", "clip_value": 1.0}}, "clipping 'valeu'; did you mean 'value'"),
        ({"clip_grad": {}}, "gradient clipping by norm needs 'max_norm'"),
    ],
)
def test_wrong_settings_are_refused(without_type_checks, words, message):
    with pytest.raises(ConfigError, match=message):
        OptimWrapper(optimizer_of(model_of()), **words)


def test_what_is_no_optimizer_is_refused(without_type_checks):
    with pytest.raises(ContractError, match=r"takes a torch\.optim\.Optimizer, got a dict"):
        OptimWrapper({"type": "SGD"})


def test_a_wrong_loss_is_refused_before_the_backward_pass(without_type_checks):
    model = model_of()
    wrapper = OptimWrapper(optimizer_of(model))
    with pytest.raises(ContractError, match=r"a single number, got the shape \(4, 1\)"):
        wrapper.update_params(model(batches_of(1)[0]))
    with pytest.raises(ContractError, match="the loss has no graph"):
        wrapper.update_params(loss_of(model, batches_of(1)[0]).detach())
    assert model[0].weight.grad is None
