import copy
import io
import logging
import math
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from simtrain.errors import CheckpointError, ConfigError, ContractError, DataError
from simtrain.training.optim_wrapper import OptimWrapper

SETTINGS = {"sgd": {"lr": 0.05, "momentum": 0.9}, "adam": {"lr": 0.05}}


def model_of(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()


def optimizer_of(model, kind="sgd"):
    return {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[kind](model.parameters(), **SETTINGS[kind])


def batches_of(count, rows=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(count, rows, 3, generator=generator, dtype=torch.float64))


def loss_of(model, batch):
    return (model(batch).squeeze(1) - batch.sum(dim=1)).square().mean()


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def plain_steps(model, optimizer, windows, clip=None):
    """A torch loop over windows of batches, each as one large batch."""
    for window in windows:
        optimizer.zero_grad()
        loss_of(model, torch.cat(window)).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()


def train(wrapper, model, batches):
    for batch in batches:
        with wrapper.optim_context(model):
            loss = loss_of(model, batch)
        wrapper.update_params(loss)


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("clip", [None, 0.1])
def test_windows_of_3_3_2_equal_steps_on_large_batches(kind, clip):
    batches = batches_of(8)
    expected, model = model_of(), model_of()
    plain_steps(expected, optimizer_of(expected, kind), [batches[:3], batches[3:6], batches[6:]], clip)
    wrapper = OptimWrapper(optimizer_of(model, kind), 3, {"max_norm": clip} if clip else None)
    wrapper.initialize_count_status(model, 0, 8)
    train(wrapper, model, batches)
    torch.testing.assert_close(weights(model), weights(expected), rtol=1e-12, atol=1e-12)
    assert wrapper.n_updates == 3
    assert all(parameter.grad is None for parameter in model.parameters())


@given(count=st.integers(1, 9), size=st.integers(1, 5), done=st.integers(0, 8))
@settings(max_examples=30)
def test_any_start_and_length_equals_steps_on_large_batches(count, size, done):
    done = min(done, count)
    batches = batches_of(count)[done:]
    ends = [end for end in range(done + 1, count + 1) if end % size == 0 or end == count]
    starts = [done, *ends[:-1]]
    windows = [batches[start - done : end - done] for start, end in zip(starts, ends, strict=False)]
    expected, model = model_of(), model_of()
    plain_steps(expected, optimizer_of(expected), windows)
    wrapper = OptimWrapper(optimizer_of(model), size)
    wrapper.initialize_count_status(model, done, count)
    updated, synced = [], []
    for i, batch in enumerate(batches):
        synced += [done + i + 1] if wrapper.should_sync() else []
        wrapper.update_params(loss_of(model, batch))
        updated += [done + i + 1] if wrapper.should_update() else []
    assert updated == synced == ends
    torch.testing.assert_close(weights(model), weights(expected), rtol=1e-11, atol=1e-11)
    assert wrapper.n_updates == len(ends)


def test_epochs_one_after_another_each_flush_their_last_window():
    batches = batches_of(4)
    expected, model = model_of(), model_of()
    plain_steps(expected, optimizer_of(expected), [batches[:3], batches[3:]] * 2)
    wrapper = OptimWrapper(optimizer_of(model), 3)
    for _ in range(2):
        wrapper.initialize_count_status(model, 0, 4)
        train(wrapper, model, batches)
    torch.testing.assert_close(weights(model), weights(expected), rtol=1e-12, atol=1e-12)


def test_without_a_known_end_the_last_window_waits():
    model = model_of()
    wrapper = OptimWrapper(optimizer_of(model), 3)
    train(wrapper, model, batches_of(8))
    assert wrapper.n_updates == 2
    assert not wrapper.should_update()
    assert model[0].weight.grad is not None


def test_batches_that_never_led_to_an_update_are_dropped_with_a_warning(caplog):
    batches = batches_of(8)
    expected, model = model_of(), model_of()
    plain_steps(expected, optimizer_of(expected), [batches[:3], batches[3:6], batches[:3]])
    wrapper = OptimWrapper(optimizer_of(model), 3)
    train(wrapper, model, batches)
    with caplog.at_level(logging.WARNING, "simtrain"):
        wrapper.initialize_count_status(model, 0, 3)
    assert "2 batches have not led to an update and are dropped; say in max_counts" in caplog.text
    train(wrapper, model, batches[:3])
    torch.testing.assert_close(weights(model), weights(expected), rtol=1e-12, atol=1e-12)


def test_one_batch_a_step_is_a_plain_loop_to_the_bit():
    batches = batches_of(5)
    expected, model = model_of(), model_of()
    plain_steps(expected, optimizer_of(expected, "adam"), [[batch] for batch in batches])
    train(OptimWrapper(optimizer_of(model, "adam")), model, batches)
    assert torch.equal(weights(model), weights(expected))


def test_the_parts_called_by_hand_do_the_same():
    batches = batches_of(7)
    expected, model = model_of(), model_of()
    train(OptimWrapper(optimizer_of(expected), 3), expected, batches)
    wrapper = OptimWrapper(optimizer_of(model), 3)
    for batch in batches:
        wrapper.backward(wrapper.scale_loss(loss_of(model, batch)))
        if wrapper.should_update():
            wrapper.step()
            model.zero_grad()
    assert torch.equal(weights(model), weights(expected))
    assert wrapper.n_updates == 2


def test_gradients_dropped_by_hand_leave_a_shorter_window():
    batches = batches_of(3)
    expected, model = model_of(), model_of()
    plain_steps(expected, optimizer_of(expected), [batches[1:]])
    wrapper = OptimWrapper(optimizer_of(model), 3)
    train(wrapper, model, batches[:1])
    wrapper.zero_grad()
    train(wrapper, model, batches[1:])
    torch.testing.assert_close(weights(model), weights(expected), rtol=1e-12, atol=1e-12)
    assert wrapper.n_updates == 1


def test_an_end_that_is_told_in_the_middle_of_a_window_counts_for_all_of_it():
    batches = batches_of(5)
    expected, model = model_of(), model_of()
    plain_steps(expected, optimizer_of(expected), [batches[:3], batches[3:]])
    wrapper = OptimWrapper(optimizer_of(model), 3)
    train(wrapper, model, batches[:4])
    wrapper.initialize_count_status(model, 4, 5)
    train(wrapper, model, batches[4:])
    torch.testing.assert_close(weights(model), weights(expected), rtol=1e-12, atol=1e-12)
    assert wrapper.n_updates == 2


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


class Distributed(nn.Module):
    """Counts what a distributed model would not synchronise."""

    def __init__(self):
        super().__init__()
        self.module = model_of()
        self.silent = False
        self.synced = []

    @contextmanager
    def no_sync(self):
        self.silent = True
        try:
            yield
        finally:
            self.silent = False

    def forward(self, inputs):
        self.synced.append(not self.silent)
        return self.module(inputs)


def test_only_the_batch_that_updates_is_synchronised():
    model = Distributed()
    wrapper = OptimWrapper(optimizer_of(model), 3)
    wrapper.initialize_count_status(model, 0, 8)
    train(wrapper, model, batches_of(8))
    assert model.synced == [False, False, True, False, False, True, False, True]


def test_without_accumulation_every_batch_is_synchronised():
    model = Distributed()
    train(OptimWrapper(optimizer_of(model)), model, batches_of(3))
    assert model.synced == [True] * 3


def test_synchronisation_is_on_again_after_an_error():
    model = Distributed()
    wrapper = OptimWrapper(optimizer_of(model), 2)
    with pytest.raises(RuntimeError, match="mat1 and mat2"), wrapper.optim_context(model):
        model(torch.ones(1, 7, dtype=torch.float64))
    assert model.synced == [False]
    assert not model.silent


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
