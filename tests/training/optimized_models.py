"""Small models, their optimizers and batches, and steps in plain PyTorch."""

import torch
from torch import nn

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
