"""Modules that keep no activations for the backward pass, but compute them again: less memory for more time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from simtrain.errors import ConfigError
from simtrain.training.parameters import nearest_names


class _Recomputed:
    """Mixed into a module's class for a while."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        forward = super().forward  # type: ignore[misc]
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def checkpointed_modules(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Names of the modules that patterns stand for; those inside of another one of them are left out.

    Args:
        model: The model.
        patterns: Each is a pattern of the end of a dotted module name, or the name of a class.

    Raises:
        ConfigError: A pattern is malformed, or stands for none.

    Example:
        >>> layers = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Linear(2, 1))
        >>> checkpointed_modules(layers, ["0"]), checkpointed_modules(layers, ["Linear"])
        (['0'], ['0.0', '1'])
    """
    named = {name: module for name, module in model.named_modules() if name}
    found: set[str] = set()
    for pattern in patterns:
        try:
            ends = re.compile(rf"(?:^|\.)(?:{pattern})$")
        except re.error as error:
            raise ConfigError(f"training.activation_checkpoint: {pattern!r} is not a pattern: {error}") from error
        hits = {name for name, module in named.items() if ends.search(name) or type(module).__name__ == pattern}
        if not hits:
            raise ConfigError(
                f"training.activation_checkpoint: {pattern!r} is the end of no module's name in "
                f"{type(model).__name__}, and no module's class; {nearest_names(pattern, named)}"
            )
        found |= hits
    return [name for name in named if name in found and not any(name.startswith(f"{outer}.") for outer in found)]


@contextmanager
def activations_recomputed(model: nn.Module, patterns: Sequence[str]) -> Iterator[None]:
    """Let modules compute their activations again in each backward pass, for a while.

    Random numbers (dropout) are the same in both passes. Names, weights and hooks of modules stay as they are.

    Args:
        model: The model.
        patterns: See :func:`checkpointed_modules`.
    """
    modules = [model.get_submodule(name) for name in checkpointed_modules(model, patterns)]
    classes = [type(module) for module in modules]
    for module, kind in zip(modules, classes, strict=True):
        module.__class__ = type(kind.__name__, (_Recomputed, kind), {"__module__": kind.__module__})
    try:
        yield
    finally:
        for module, kind in zip(modules, classes, strict=True):
            module.__class__ = kind
