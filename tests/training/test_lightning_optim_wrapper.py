from contextlib import contextmanager

import lightning
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from simtrain import Runner
from simtrain.training import OptimWrapper
from tests.contract.seed_models import ToyModel, toy_batches

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`.*"),
    pytest.mark.filterwarnings("ignore:.*number of training batches.*"),
]


class SelfUpdating(ToyModel):
    """Updates by the wrapper it asks for, and notes rates and gradient norms."""

    def __init__(self, **cfg):
        super().__init__()
        self.seen, self.norms = [], []
        self.optim_wrapper_cfg = cfg
        self.make_optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.1)

    def train_step(self, batch, optim_wrapper):
        loss = self.compute_loss(**batch)["loss"]
        optim_wrapper.update_params(loss)
        self.seen.append(optim_wrapper.get_lr()["lr"][0])
        self.norms.append(optim_wrapper.grad_norm)
        return {"loss": loss.detach()}


class Stream(IterableDataset):
    def __iter__(self):
        return iter(toy_batches(5))


def trainer(**options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return lightning.Trainer(accelerator="cpu", enable_model_summary=False, **{**quiet, **options})


def reference(model, data, epochs=2, **cfg):
    twin = SelfUpdating()
    twin.load_state_dict(model.state_dict())
    wrapper = OptimWrapper(torch.optim.SGD(twin.parameters(), lr=0.1), **cfg)
    for _ in range(epochs):
        wrapper.initialize_count_status(twin, 0, len(data))
        for batch in data:
            twin.train_step(batch, wrapper)
    return twin


@pytest.mark.parametrize("counts", [1, 2, 3, 7])
@pytest.mark.parametrize("clip", [None, {"max_norm": 0.5}, {"type": "value", "clip_value": 0.05}])
def test_under_a_trainer_it_updates_as_alone(counts, clip):
    data = toy_batches(5)
    model = SelfUpdating(accumulative_counts=counts, clip_grad=clip)
    twin = reference(model, data, accumulative_counts=counts, clip_grad=clip)
    trainer(max_epochs=2).fit(model, DataLoader(data, batch_size=None))
    torch.testing.assert_close(model.linear.weight, twin.linear.weight, rtol=1e-6, atol=1e-7)
    if clip is not None:
        torch.testing.assert_close(model.norms[-1], twin.norms[-1])


def test_mixed_precision_clips_what_is_unscaled():
    data = toy_batches(5)
    model = SelfUpdating(clip_grad={"max_norm": 0.5})
    twin = reference(model, data, clip_grad={"max_norm": 0.5})
    trainer(max_epochs=2, precision="bf16-mixed").fit(model, DataLoader(data, batch_size=None))
    torch.testing.assert_close(model.linear.weight, twin.linear.weight, rtol=0.05, atol=0.02)


def test_a_schedule_follows_each_update_and_counts_updates_not_batches():
    model = SelfUpdating()
    cfg = {
        "scheduler": {"type": "linear", "warmup_rate": 0.0},
        "training": {"gradient_accumulation": 2},
    }
    Runner(model, 2, DataLoader(toy_batches(4), batch_size=None), cfg=cfg).fit()
    assert model.seen == pytest.approx([0.1, 0.075, 0.075, 0.05, 0.05, 0.025, 0.025, 0.0])


def test_a_stream_of_unknown_length_updates_in_full_windows():
    model = SelfUpdating(accumulative_counts=2)
    before = model.linear.weight.clone()
    trainer(max_epochs=1).fit(model, DataLoader(Stream(), batch_size=None))
    assert not torch.equal(model.linear.weight, before)
    assert len(model.seen) == 5


def test_processes_are_kept_from_talking_until_the_batch_that_updates():
    blocked = []

    class Watched(SelfUpdating):
        def on_fit_start(self):
            @contextmanager
            def block():
                blocked.append(len(self.seen))
                yield

            # As the strategies of several processes have it.
            self.trainer.strategy.block_backward_sync = block

    model = Watched(accumulative_counts=3)
    trainer(max_epochs=1).fit(model, DataLoader(toy_batches(5), batch_size=None))
    assert blocked == [0, 1, 3]  # of the windows 0 1 2 and 3 4
