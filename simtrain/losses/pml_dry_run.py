"""A loss of pytorch-metric-learning, tried out against a memory of a few vectors before training."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from simtrain.errors import ConfigError
from simtrain.losses.group_loss import GroupLoss

_DIM, _BATCH, _MEMORY = 8, 6, 12


def dry_run(loss: GroupLoss, num_groups: int | None) -> None:
    """Call a copy of a loss with a batch and a larger memory, and its backward pass.

    Reducers and miners do not say what they can do. One that takes a batch alone would fail in the first step in which
    the memory is used, long after the start.

    Args:
        loss: The loss, which stays as it is.
        num_groups: How many groups it knows; None for any number.

    Raises:
        ConfigError: The call fails.

    Example:
        >>> from simtrain.losses import PytorchMetricLearningWrapper
        >>> dry_run(PytorchMetricLearningWrapper({"type": "pml.CircleLoss"}), None)
    """
    tried = copy.deepcopy(loss).cpu().float()
    groups = torch.arange(_MEMORY) % min(num_groups or 3, 3)
    generator = torch.Generator().manual_seed(0)
    memory = torch.randn(_MEMORY, _DIM, generator=generator)
    embeddings = torch.randn(_BATCH, _DIM, generator=generator).requires_grad_()
    own = torch.zeros(_BATCH, _MEMORY, dtype=torch.bool).fill_diagonal_(True)
    with _own_random_numbers(), torch.enable_grad():
        try:
            value = tried.memory_loss(embeddings, groups[:_BATCH], memory, groups, own)
            torch.autograd.grad(value, embeddings)
        except Exception as error:
            raise ConfigError(
                f"{_words(loss)} fails against a cross-batch memory ({type(error).__name__}: {error}); leave out xbm, "
                f"or choose another reducer or miner"
            ) from error


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    # Some draw triplets, with torch or with numpy.
    numpy_state = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            np.random.set_state(numpy_state)


def _words(loss: nn.Module) -> str:
    # The loss, and those of its parts that may be the reason.
    parts = [part for part in loss.modules() if type(part).__module__.startswith("pytorch_metric_learning")]
    kinds = ("losses", "miners", "reducers")
    names = [type(part).__name__ for part in parts if type(part).__module__.split(".")[1] in kinds]
    first, *others = (f"pml.{name}" for name in dict.fromkeys(names))
    return f"{first} (with {', '.join(others)})" if others else first
