"""Schedules of the learning rate under a trainer."""

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from simtrain import BaseModel
from simtrain.data import PairsSimilarityDataLoader
from simtrain.training.schedules import linear
from tests.contract.seed_models import ToyModel
from tests.training.models import pair_model, pair_samples
from tests.training.trained_toys import Manual, loader, sgd, trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`.*"),
    pytest.mark.filterwarnings("ignore:.*number of training batches.*"),
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training.*"),
]


class TwoOptimizers(BaseModel):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2, 1), nn.Linear(2, 1)
        self.rates = []

    def forward(self, x, mode="tensor"):
        return {"loss": self.a(x) + self.b(x)}

    def train_step(self, batch, optim_wrapper):
        for wrapper, layer in zip(optim_wrapper, (self.a, self.b), strict=True):
            wrapper.update_params(layer(batch["x"]).square().mean())
        self.rates.append([wrapper.get_lr()["lr"][0] for wrapper in optim_wrapper])
        return {}

    def configure_optimizers(self):
        optimizers = [torch.optim.SGD(layer.parameters(), lr=1.0) for layer in (self.a, self.b)]
        halve = torch.optim.lr_scheduler.LambdaLR(optimizers[0], lambda step: 0.5**step)
        slower = torch.optim.lr_scheduler.LambdaLR(optimizers[1], lambda step: 0.1**step)
        schedules = [
            {"scheduler": halve, "interval": "step"},
            {"scheduler": slower, "interval": "step", "frequency": 2},
        ]
        return optimizers, schedules


def test_each_schedule_follows_its_own_optimizer():
    model = TwoOptimizers()
    trainer(max_epochs=1).fit(model, DataLoader([{"x": torch.ones(2, 2)}] * 4, batch_size=None))
    assert [rate for rate, _ in model.rates] == pytest.approx([0.5, 0.25, 0.125, 0.0625])
    assert [rate for _, rate in model.rates] == pytest.approx([1.0, 0.1, 0.1, 0.01])


def test_schedules_by_epoch_are_stepped_for_a_step_with_a_wrapper():
    rates = []

    class ByEpoch(Manual):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
            return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]

        def on_train_epoch_start(self):
            rates.append(self.optimizers().param_groups[0]["lr"])

    trainer(max_epochs=3).fit(ByEpoch(), loader(2))
    assert rates == pytest.approx([1.0, 0.5, 0.25])


@pytest.mark.parametrize(("options", "steps"), [({"max_epochs": 2}, 4), ({"max_epochs": 2, "max_steps": 3}, 3)])
def test_a_schedule_is_told_the_number_of_updates(options, steps):
    told = []
    model = Manual(accumulative_counts=4)
    model.make_scheduler = lambda optimizer, total: (
        told.append(total) or torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    )
    trainer(**options).fit(model, loader(5))
    assert told == [steps]


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_epochs": 3}, 15),
        ({"max_epochs": 3, "accumulate_grad_batches": 2}, 9),
        ({"max_epochs": 3, "limit_train_batches": 3}, 9),
        ({"max_epochs": 2, "limit_train_batches": 0.5}, 4),
        ({"max_epochs": -1, "max_steps": 7}, 7),
    ],
)
def test_the_number_of_updates_is_that_of_the_trainer(options, steps):
    told = []
    model = sgd(ToyModel())
    model.make_scheduler = lambda optimizer, total: (
        told.append(total) or torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    )
    run = trainer(**options)
    run.fit(model, loader(5))
    assert told == [steps] == [run.global_step]


def test_a_run_with_a_schedule_goes_on_in_the_middle_of_an_epoch(tmp_path):
    class Stop(lightning.pytorch.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if trainer.global_step == 9:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")
                trainer.should_stop = True

    def made():
        torch.manual_seed(0)
        model = pair_model(scheduler=linear, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))
        return model, PairsSimilarityDataLoader(pair_samples(24), batch_size=4, shuffle=True)

    whole, data = made()
    trainer(max_epochs=3).fit(whole, data)
    first, data = made()
    trainer(Stop(), max_epochs=3, enable_checkpointing=False).fit(first, data)
    resumed, data = made()
    trainer(max_epochs=3).fit(resumed, data, ckpt_path=tmp_path / "middle.ckpt", weights_only=True)
    for name, value in whole.model.head.state_dict().items():
        assert torch.equal(resumed.model.head.state_dict()[name], value), name
