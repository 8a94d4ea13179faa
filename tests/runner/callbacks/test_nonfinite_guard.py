"""Steps whose gradients are not finite are left out, counted, and end training where they do not stop."""

import logging
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from simtrain import BaseCallBack, BaseModel, CacheConfig, CacheType, Runner
from simtrain.errors import DataError
from simtrain.losses import GroupLoss
from simtrain.runner.callbacks.nonfinite_guard import NonfiniteGuard, are_finite
from tests.contract.seed_models import ToyModel, toy_batches
from tests.runner.loop_twins import loader_of
from tests.training.models import group_model


class Spoilt(ToyModel):
    """Its losses are not finite at some steps."""

    def __init__(self, bad, how):
        super().__init__()
        self.bad, self.how, self.step = bad, how, 0

    def train_step(self, batch):
        loss = self.compute_loss(**batch)["loss"]
        self.step += 1
        return {"loss": self.how(loss, self.linear.weight) if self.step in self.bad else loss}


HOWS = {
    "nan": lambda loss, weight: loss * float("nan"),
    "inf": lambda loss, weight: loss / 0,
    # Gradients through a square root at zero are infinite, the loss is not.
    "gradient": lambda loss, weight: loss + (weight * 0).abs().sum().sqrt(),
    # The gradient is finite, but a loss of infinity has none that means anything.
    "constant": lambda loss, weight: loss + float("inf"),
}


class Skipped(BaseCallBack):
    def __init__(self):
        self.counts = []

    def after_running_batch(self):
        figure = self.runner.state.trainer.callback_metrics.get("train_skipped_steps")
        self.counts.append(None if figure is None else int(figure))


def fit(model, n=6, accumulated=1, **training):
    watch = Skipped()
    training = {"gradient_accumulation": accumulated, **training}
    cfg = {"optimizer": {"type": "Adam", "lr": 0.05}, "training": training}
    Runner(model, 1, DataLoader(toy_batches(n), batch_size=None), cfg=cfg, callbacks=[watch]).fit()
    return watch.counts


def reference(model, n, left_out, accumulated=1):
    optimizer, data = torch.optim.Adam(model.parameters(), lr=0.05), toy_batches(n)
    for start in range(0, n, accumulated):
        window = range(start, min(start + accumulated, n))
        if left_out & {number + 1 for number in window}:
            continue
        optimizer.zero_grad()
        torch.stack([model.compute_loss(**data[number])["loss"] for number in window]).mean().backward()
        optimizer.step()
    return model


@pytest.mark.contract("wall_e-18", "002-17")
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("accumulated", [1, 2, 4])
def test_wall_e_18_steps_that_are_not_finite_are_left_out(how, accumulated, caplog):
    model = Spoilt({2, 5}, HOWS[how])
    twin = ToyModel()
    twin.load_state_dict(model.state_dict())
    counts = fit(model, accumulated=accumulated, grad_clip=1e9)
    expected = reference(twin, 6, {2, 5}, accumulated)
    torch.testing.assert_close(model.linear.weight, expected.linear.weight)
    assert counts[-1] == 2
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(lines) == 2
    end = {1: 2, 2: 2, 4: 4}[accumulated]
    assert lines[0].startswith(f"gradients are not finite: the step after batch {end} of epoch 1 is left out")
    assert ("the loss of batch 2 is " in lines[0]) is (how != "gradient")


def test_training_stops_after_too_many_in_a_row_and_names_the_batch():
    model = Spoilt({2, 4, 5, 6}, HOWS["inf"])
    message = (
        r"the gradients of 3 steps in a row are not finite, the last one after batch 6 of epoch 1 \(the loss of "
        r"batch 6 is inf\); no weight was changed by them. Lower the learning rate"
    )
    with pytest.raises(DataError, match=message):
        fit(model, nonfinite_limit=2)
    assert model.linear.weight.isfinite().all()
    assert fit(Spoilt({2, 4, 5, 6}, HOWS["inf"]), nonfinite_limit=3)[-1] == 4
    with pytest.raises(DataError, match=r"the gradients of 1 steps in a row .* after batch 2 of epoch 1"):
        fit(Spoilt({2}, HOWS["gradient"]), nonfinite_limit=0)


def test_without_a_limit_the_first_loss_ends_training_and_the_model_is_let_go():
    model = Spoilt({2}, HOWS["inf"])
    with pytest.raises(DataError, match=r"the loss of Spoilt.train_step is inf; no weight was changed"):
        fit(model, nonfinite_limit=None)
    for bad, limit in (({1}, 5), ({1}, 0)):
        model = Spoilt(bad, HOWS["nan"])
        try:
            fit(model, nonfinite_limit=limit)
        except DataError:
            assert limit == 0
        assert model.on_nonfinite_loss is None


def test_statistics_that_are_spoilt_end_training():
    class Normed(BaseModel):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(10)

        def forward(self, x, y, mode):
            return {"loss": self.norm(x)} if mode == "loss" else [x]

    data = toy_batches(3)
    data[1]["x"][0, 0] = float("nan")
    message = "a buffer of the model is not finite after batch 2 of epoch 1, .*: norm.running_mean, norm.running_var"
    with pytest.raises(DataError, match=message):
        Runner(Normed(), 1, DataLoader(data, batch_size=None)).fit()


class SometimesInfinite(GroupLoss):
    def __init__(self):
        super().__init__()
        self.step = 0

    def forward(self, embeddings, groups):
        self.step += 1
        return embeddings.square().mean() * (float("inf") if self.step in (3, 4, 9) else 1.0)


@pytest.mark.contract("wall_e-18")
def test_wall_e_18_the_fast_loop_leaves_out_the_same_steps_and_names_items(caplog):
    ended, counts = {}, {}
    for loop in ("trainer", "cached"):
        torch.manual_seed(5)
        model = group_model(loss=SometimesInfinite(), cache=CacheConfig(CacheType.CPU))
        torch.manual_seed(6)
        cfg = {"training": {"loop": loop, "device": "cpu"}}
        watch = Skipped()
        Runner(model, 2, partial(loader_of, "groups", shuffle=True)(), cfg=cfg, callbacks=[watch]).fit()
        ended[loop], counts[loop] = [p.tolist() for p in model.model.head.parameters()], watch.counts
    assert ended["trainer"] == ended["cached"]
    assert counts["trainer"] == counts["cached"]
    assert counts["cached"][-1] == 3
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert lines[:3] == lines[3:]
    assert len(lines) == 6


def test_the_count_is_kept_in_checkpoints():
    guard, other = NonfiniteGuard(3), NonfiniteGuard(3)
    guard.count, guard.in_a_row = 7, 2
    other.load_state_dict(guard.state_dict())
    assert (other.count, other.in_a_row) == (7, 2)


def test_all_kinds_of_gradients_are_looked_at():
    inf = float("inf")
    sparse = torch.sparse_coo_tensor([[1]], [[inf]], (3, 1), check_invariants=True)
    assert are_finite([])
    assert are_finite([torch.full((5,), 3e38), torch.full((7,), 3e38)])  # a norm that overflows is no infinity
    for bad in (torch.tensor([1.0, -inf]), torch.tensor([float("nan")]), sparse, torch.tensor([inf, -inf])):
        assert not are_finite([torch.ones(3), bad])
    assert are_finite([torch.sparse_coo_tensor([[1]], [[2.0]], (3, 1), check_invariants=True)])
