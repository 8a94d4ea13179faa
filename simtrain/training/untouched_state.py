"""Calling a model without leaving traces."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from simtrain.models.eval_mode import eval_mode


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put ``model`` into eval mode, and afterwards put everything back as it was.

    That is: modes, parameters, buffers, gradients and random state.
    Random state is that of torch (the CPU's and the devices' that the model is on), NumPy and Python. The values are
    kept on the CPU meanwhile: they take the model's size in memory.

    Example:
        >>> layer = nn.BatchNorm1d(2)
        >>> with untouched(layer):
        ...     _ = layer.train()(torch.randn(4, 2))
        >>> layer.num_batches_tracked
        tensor(0)
    """
    with eval_mode(model), _random_state(model), _tensors(model):
        yield


@contextmanager
def _random_state(model: nn.Module) -> Iterator[None]:
    gpus = sorted({t.device.index or 0 for t in (*model.parameters(), *model.buffers()) if t.device.type == "cuda"})
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(gpus):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def _tensors(model: nn.Module) -> Iterator[None]:
    tables: list[Any] = [table for module in model.modules() for table in (module._parameters, module._buffers)]
    before = [dict(table) for table in tables]
    # Through .data, so that a graph that waits for its backward pass does not see a change.
    kept = {id(t): (t, t.data, _copy(t), _grad(t)) for table in before for t in table.values() if t is not None}
    try:
        yield
    finally:
        for table, entries in zip(tables, before, strict=True):
            table.clear()
            table.update(entries)
        for tensor, memory, values, grad in kept.values():
            memory.copy_(values)
            tensor.data = memory
            if _grad(tensor) is not grad:
                tensor.grad = grad


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu" if not tensor.is_meta else "meta", copy=True)


def _grad(tensor: Tensor) -> Tensor | None:
    # torch warns where a computed tensor is asked for its gradient.
    return tensor.grad if tensor.is_leaf else None
