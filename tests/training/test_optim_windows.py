"""Batches of a window of accumulation make one step on a large batch."""

import logging
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

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
