"""Toy models and a quiet trainer for them."""

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader

from simtrain import BaseModel
from tests.contract.seed_models import ToyModel, toy_batches


class Manual(ToyModel):
    """Updates by the wrapper that it asks for."""

    def __init__(self, **cfg):
        super().__init__()
        self.optim_wrapper_cfg = cfg
        self.make_optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.1)

    def train_step(self, batch, optim_wrapper):
        optim_wrapper.update_params(self.compute_loss(**batch)["loss"])
        return {}


def trainer(*callbacks, **options):
    quiet = {"logger": False, "enable_checkpointing": bool(callbacks), "enable_progress_bar": False}
    return lightning.Trainer(
        accelerator="cpu", enable_model_summary=False, callbacks=list(callbacks), **{**quiet, **options}
    )


def loader(n=5):
    return DataLoader(toy_batches(n), batch_size=None)


def sgd(model):
    model.make_optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.1)
    return model


class Inner(BaseModel):
    def __init__(self, size=2):
        super().__init__()
        self.layer = nn.Linear(size, 1)

    def forward(self, x, mode="tensor"):
        return {"loss": self.layer(x)}
