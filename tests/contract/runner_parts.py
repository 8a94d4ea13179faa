"""What the tests of the runner share: loaders, callbacks that take notes, a metric, a model that notes its mode."""

from __future__ import annotations

from torch import nn
from torch.utils.data import DataLoader

from simtrain import BaseCallBack, BaseModel
from simtrain.evaluation.base_metric import BaseMetric
from tests.contract.seed_models import toy_batches

HOOKS = [
    *("before_fit", "before_train", "before_running_epoch", "before_running_batch", "after_running_batch"),
    *("before_valid", "after_valid", "before_test", "after_test", "after_running_epoch", "after_train", "after_fit"),
]


def loader(n=4, **words):
    return DataLoader(toy_batches(n, **words), batch_size=None)


class Diary(BaseCallBack):
    """Writes down what it is told."""

    def __init__(self):
        self.lines = []

    def on_register(self):
        self.lines.append("on_register")

    def on_exception(self, exception):
        self.lines.append(exception)


def note(hook):
    return lambda self: self.lines.append(hook)


for each in HOOKS:
    setattr(Diary, each, note(each))


class Mean(BaseMetric):
    """The mean of the losses that the steps gave."""

    def process(self, data_batch, data_samples):
        self.results.append(float(data_samples["loss"]))

    def compute_metrics(self, results):
        return {"mean": sum(results) / len(results)}


class Modes(BaseModel):
    """Notes the mode that each of its steps runs in."""

    def __init__(self):
        super().__init__()
        self.linear, self.frozen, self.seen = nn.Linear(10, 1), nn.Dropout().eval(), []

    def compute_loss(self, x, y):
        return {"loss": nn.functional.mse_loss(self.linear(x), y)}

    def train_step(self, batch):
        self.seen.append(("train", self.training, self.frozen.training))
        return self.compute_loss(**batch)

    def valid_step(self, batch):
        self.seen.append(("valid", self.training, self.frozen.training))
        return self.compute_loss(**batch)

    test_step = valid_step
