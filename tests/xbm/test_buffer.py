import copy
import io
from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simtrain.errors import CheckpointError, ConfigError, DataError
from simtrain.losses import CandidateLoss, SupConLoss
from simtrain.xbm import XbmBuffer

STATE = ["embeddings", "groups", "items", "n_filled", "n_refused", "norms", "pointer", "sides"]


def batch(first: int, n: int, dim: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows whose embedding, group and item tell the row's number."""
    items = torch.arange(first, first + n)
    return items.float().unsqueeze(1).repeat(1, dim) / 8, items // 3, items


def contents(memory: XbmBuffer) -> list[tuple[float, int, int]]:
    embeddings, groups, items = memory.get()
    return sorted(zip(embeddings[:, 0].tolist(), groups.tolist(), items.tolist(), strict=True))


class Model(deque):
    """The same memory as a Python list."""

    refused = 0

    def queue(self, embeddings, groups, items):
        for embedding, group, item in zip(embeddings, groups.tolist(), items.tolist(), strict=True):
            if embedding.isfinite().all():
                self.append((embedding[0].item(), group, item))
            else:
                self.refused += 1


# Sizes of successive batches, and in each the rows that are not finite.
steps = st.lists(st.tuples(st.integers(0, 9), st.sets(st.integers(0, 8))), max_size=12)


def play(memory: XbmBuffer, model: Model, steps, first: int = 0) -> int:
    for n, spoilt in steps:
        embeddings, groups, items = batch(first, n)
        for row in spoilt:
            embeddings[row : row + 1, row % 2] = [float("nan"), float("inf"), float("-inf")][row % 3]
        memory.queue(embeddings, groups, items)
        model.queue(embeddings, groups, items)
        first += n
        assert contents(memory) == sorted(model)
        assert memory.is_full == (len(model) == model.maxlen)
        assert len(memory) == len(model)
        assert memory.n_refused == model.refused
    return first


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 7), steps=steps)
def test_equals_a_python_list(size, steps):
    play(XbmBuffer(size, 2), Model(maxlen=size), steps)


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 7), before=steps, after=steps, other=steps)
def test_a_checkpoint_continues_exactly(size, before, after, other):
    memory, model = XbmBuffer(size, 2), Model(maxlen=size)
    first = play(memory, model, before)
    file = io.BytesIO()
    torch.save(memory.state_dict(), file)
    file.seek(0)
    restored = XbmBuffer(size, 2)
    play(restored, Model(maxlen=size), other)  # what the ring held before, being full included, is forgotten
    restored.load_state_dict(torch.load(file, weights_only=True))
    play(restored, model, after, first)
    model_alone = Model(model, maxlen=size)
    assert contents(restored) == sorted(model_alone)


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 7), before=steps, after=steps)
def test_restored_and_uninterrupted_states_are_equal(size, before, after):
    memory, restored, model = XbmBuffer(size, 2), XbmBuffer(size, 2), Model(maxlen=size)
    first = play(memory, model, before)
    restored.load_state_dict(memory.state_dict())
    play(restored, copy.deepcopy(model), after, first)
    play(memory, model, after, first)
    for name, tensor in memory.state_dict().items():
        assert torch.equal(tensor, restored.state_dict()[name]), name


def test_all_state_is_in_the_checkpoint():
    assert sorted(XbmBuffer(3, 2).state_dict()) == STATE


def test_a_checkpoint_of_a_model_restores_its_memory():
    model = torch.nn.ModuleDict({"memory": XbmBuffer(3, 2)})
    model["memory"].queue(*batch(0, 3))
    other = torch.nn.ModuleDict({"memory": XbmBuffer(3, 2)})
    assert not other["memory"].is_full
    other.load_state_dict(model.state_dict())
    assert other["memory"].is_full
    emptied = XbmBuffer(3, 2).state_dict()
    other["memory"].load_state_dict(emptied)
    assert not other["memory"].is_full
    assert len(other["memory"].get()[0]) == 0


def test_a_deep_copy_is_independent():
    memory = XbmBuffer(3, 2)
    memory.queue(*batch(0, 3))
    copied = copy.deepcopy(memory)
    assert copied.is_full
    copied.load_state_dict(XbmBuffer(3, 2).state_dict())
    assert (memory.is_full, copied.is_full) == (True, False)
    assert len(contents(memory)) == 3


def test_get_returns_views_not_copies():
    memory = XbmBuffer(5, 2)
    memory.queue(*batch(1, 2))
    for view, ring in zip(memory.get(), (memory.embeddings, memory.groups, memory.items), strict=True):
        assert view.data_ptr() == ring.data_ptr()
        assert len(view) == 2


def test_embeddings_are_detached_and_kept_apart():
    embeddings, groups, items = batch(0, 2)
    embeddings.requires_grad_()
    memory = XbmBuffer(4, 2)
    memory.queue(embeddings, groups, items)
    with torch.no_grad():
        embeddings.fill_(99)
    assert not memory.get()[0].requires_grad
    assert contents(memory) == [(0.0, 0, 0), (0.125, 0, 1)]


def test_what_overflows_the_ring_s_dtype_is_refused():
    memory = XbmBuffer(4, 2, dtype=torch.float16)
    memory.queue(torch.tensor([[1e5, 0.0], [1.0, 2.0]]), torch.tensor([0, 1]), torch.tensor([0, 1]))
    assert contents(memory) == [(1.0, 1, 1)]
    assert memory.n_refused == 1


def test_a_finite_row_whose_length_overflows_is_kept():
    memory = XbmBuffer(3, 2)
    for first in range(3):
        embeddings, groups, items = batch(first, 2)
        memory.queue(embeddings + 3e38 * (items == 1).unsqueeze(1), groups, items)
    assert memory.n_refused == 0
    assert sorted(memory.items.tolist()) == [2, 2, 3]
    assert XbmBuffer(3, 2).rows().embeddings.shape == (0, 2)


@pytest.mark.parametrize("size", [1, 5, 8])
def test_finite_batches_are_written_as_others_are(size):
    """On the CPU, a batch that is finite goes in whole; one that may not be goes in row by row."""
    whole, by_rows = XbmBuffer(size, 2), XbmBuffer(size, 2)
    for n in (3, 2, 8, 1, 7):
        embeddings, groups, items = batch(n, n)
        rows = {"embeddings": embeddings, "groups": groups, "items": items, "sides": items % 2}
        whole.queue(**rows)
        by_rows._write_finite({**rows, "norms": embeddings.norm(dim=1)})
        for name, tensor in whole.state_dict().items():
            assert torch.equal(tensor, by_rows.state_dict()[name]), name


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.uint8])
def test_groups_and_items_are_int64(dtype):
    memory = XbmBuffer(4, 2)
    memory.queue(torch.ones(2, 2), torch.tensor([1, 2], dtype=dtype), torch.tensor([3, 4], dtype=dtype))
    _, groups, items = memory.get()
    assert (groups.dtype, items.dtype) == (torch.int64, torch.int64)
    assert (groups.tolist(), items.tolist()) == ([1, 2], [3, 4])


class MeanProduct(CandidateLoss):
    """A loss of a user's own: its graph runs through the memory."""

    def compare(self, anchors, candidates, positive, negative):
        return (anchors @ candidates.T)[positive].mean()


def test_queueing_between_loss_and_backward_is_an_error_not_a_wrong_gradient():
    memory, groups = XbmBuffer(4, 2), torch.tensor([0, 0, 1, 1])
    memory.queue(torch.randn(4, 2), groups, torch.arange(4))
    embeddings = torch.randn(4, 2, requires_grad=True)
    value = MeanProduct().memory_loss(embeddings, groups, *memory.get()[:2])
    memory.queue(embeddings, groups, torch.arange(4))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_losses_by_blocks_keep_nothing_of_the_ring_for_their_backward_pass():
    memory, groups = XbmBuffer(4, 2), torch.tensor([0, 0, 1, 1])
    memory.queue(torch.randn(4, 2), groups, torch.arange(4))
    embeddings = torch.randn(4, 2, requires_grad=True)
    value = SupConLoss().memory_rows_loss(embeddings, groups, torch.arange(4), memory.rows())
    (expected,) = torch.autograd.grad(value, embeddings, retain_graph=True)
    memory.queue(torch.randn(4, 2), groups, torch.arange(4))
    assert torch.equal(torch.autograd.grad(value, embeddings)[0], expected)


def test_a_ring_on_auto_follows_the_model_and_one_with_a_device_stays():
    model = torch.nn.ModuleDict({"auto": XbmBuffer(3, 2), "stays": XbmBuffer(3, 2, device="cpu")})
    model.to("meta")
    assert model["auto"].embeddings.device.type == "meta"
    assert model["stays"].embeddings.device.type == "cpu"
    model["stays"].queue(*batch(0, 2))
    assert len(model["stays"]) == 2


def test_conversion_of_the_model_leaves_a_staying_ring_and_all_numbers():
    model = torch.nn.ModuleDict({"auto": XbmBuffer(3, 2), "stays": XbmBuffer(3, 2, device="cpu")}).half()
    assert model["stays"].embeddings.dtype == torch.float32
    assert model["auto"].groups.dtype == torch.int64


def test_representation():
    assert repr(XbmBuffer(3, 2)) == "XbmBuffer(buffer_size=3, embedding_size=2, dtype=torch.float32)"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_queue_never_waits_for_a_gpu():
    memory, model = XbmBuffer(5, 2).cuda(), Model(maxlen=5)
    for first, n in ((0, 3), (3, 9), (12, 4)):
        rows = batch(first, n)
        rows[0][1] = float("nan")
        model.queue(*rows)
        on_gpu = [tensor.cuda() for tensor in rows]
        torch.cuda.set_sync_debug_mode("error")
        try:
            memory.queue(*on_gpu)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert contents(memory) == sorted(model)


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"buffer_size": 0}, "XbmBuffer: buffer_size must be a whole number, 1 or more, got 0"),
        ({"embedding_size": 2.0}, "XbmBuffer: embedding_size must be a whole number, 1 or more, got 2.0"),
        ({"dtype": torch.int64}, "XBM: dtype must be a floating point type"),
        ({"device": "nowhere"}, "XBM: device must be 'auto' or a torch device"),
    ],
)
def test_wrong_settings_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        XbmBuffer(**{"buffer_size": 3, "embedding_size": 2, **words})


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            (torch.ones(2, 3), torch.ones(2).long(), torch.ones(2).long()),
            r"embeddings must be .* of shape \(batch, 2\), got",
        ),
        ((torch.ones(2, 2).long(), torch.ones(2).long(), torch.ones(2).long()), "embeddings must be a floating point"),
        (
            (torch.ones(2, 2), torch.ones(2), torch.ones(2).long()),
            r"groups must be an integer tensor of shape \(2,\), got",
        ),
        (
            (torch.ones(2, 2), torch.ones(2).long(), torch.ones(3).long()),
            r"items must be an integer tensor of shape \(2,\)",
        ),
    ],
)
def test_wrong_rows_are_refused(rows, message):
    memory = XbmBuffer(4, 2)
    with pytest.raises(DataError, match=message):
        memory.queue(*rows)
    assert len(memory) == 0


def test_lengths_are_kept_beside_the_rows_and_completed_in_old_checkpoints():
    memory = XbmBuffer(5, 2, dtype=torch.float16)
    memory.queue(*batch(3, 4))
    rows = memory.rows()
    torch.testing.assert_close(rows.lengths, rows.embeddings.float().norm(dim=1))
    state = {name: value for name, value in memory.state_dict().items() if name not in ("norms", "sides")}
    restored = XbmBuffer(5, 2, dtype=torch.float16)
    restored.load_state_dict(state)
    torch.testing.assert_close(restored.norms, memory.norms)


@pytest.mark.parametrize(("size", "dim"), [(5, 2), (8, 3)])
def test_the_state_of_another_size_is_refused_with_both_sizes(size, dim):
    memory, state = XbmBuffer(size, dim), XbmBuffer(8, 2).state_dict()
    message = rf"has buffer_size=8 and embeddings of 2 dimensions, this one has buffer_size={size} and {dim} dimensions"
    for strict in (True, False):
        with pytest.raises(CheckpointError, match=message):
            memory.load_state_dict(state, strict=strict)
    with pytest.raises(CheckpointError, match=message):
        torch.nn.ModuleDict({"memory": memory}).load_state_dict({f"memory.{name}": x for name, x in state.items()})
    assert len(memory) == 0
